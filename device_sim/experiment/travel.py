"""[upload] and [download]: how updates travel up, and models down."""

from __future__ import annotations

from dataclasses import dataclass

from device_sim.experiment.keys import key, positive
from fl_mobile.agreement import MEMORIES
from fl_mobile.codecs import admit_codec, parse_codec
from fl_mobile.codecs.choice import AUTO, Target
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError, check_known

FORWARD_FINER = 128
"""A round's step of a thousandth of the first weights' rms is then still more than one step of the lattice."""


@dataclass(frozen=True)
class Upload:
    """[upload]: how updates travel up."""

    codec: str = key("ecsq", "a name or stages from `fl-mobile codecs`, e.g. topk:0.01+q8+deflate; auto: by the target")
    memory: str = key("none", f"{' | '.join(MEMORIES)}: what happens to what the codec leaves out")
    target_ratio: float = key(0.0, "ratio to aim at: ecsq's step every round, sketch's k once; 0 is off")
    budget_bytes: int = key(0, "the same, as bytes of one upload; 0 is off")

    def __post_init__(self) -> None:
        admit_codec(self.codec)
        codec = None if self.codec == AUTO else parse_codec(self.codec)
        check_known("upload.memory", self.memory, MEMORIES)
        if self.target_ratio and self.budget_bytes:
            raise ConfigError("give upload.target-ratio or upload.budget-bytes, not both")
        if self.target_ratio < 0 or self.budget_bytes < 0:
            raise ConfigError("upload.target-ratio and upload.budget-bytes must be ≥ 0")
        if (self.target_ratio or self.budget_bytes) and not isinstance(codec, Ecsq | Sketch | None):
            raise ConfigError(
                f"upload.codec '{self.codec}' has nothing to adapt to a target; use codec ecsq, sketch or auto"
            )

    @property
    def target(self) -> Target:
        """How small an upload shall be."""
        return Target(ratio=self.target_ratio, budget_bytes=self.budget_bytes)


@dataclass(frozen=True)
class Download:
    """[download]: how the global model travels down; devices train on what they really received."""

    mode: str = key(
        "delta",
        "full: the whole model | delta: its difference to what a device holds | forward: or sums of rounds",
    )
    codec: str = key("float16", "full, and what scaffold sends: a name or stages from `fl-mobile codecs`")
    step: float = key(0.1, "delta: precision of the broadcast weights, in multiples of their first rms (forward: /128)")
    ternary: float = key(0.0, "forward: share of a round's sums that travel, the largest, by sign; 0: all, as numbers")

    def __post_init__(self) -> None:
        admit_codec(self.codec)
        parse_codec(self.codec)
        if self.mode not in ("full", "delta", "forward"):
            raise ConfigError(f"download.mode must be full, delta or forward, got '{self.mode}'")
        positive("download", step=self.step)
        if not 0 <= self.ternary <= 1:
            raise ConfigError(f"download.ternary is a share, 0 to 1, got {self.ternary}; e.g. 0.15, or 0 for all")

    @property
    def lattice_step(self) -> float:
        """How fine the lattice is on which models travel, 0 where they do not.

        Forwarded sums move by whole steps in every round, however small the round's own: it has to be finer for them.
        """
        return {"full": 0.0, "delta": self.step, "forward": self.step / FORWARD_FINER}[self.mode]
