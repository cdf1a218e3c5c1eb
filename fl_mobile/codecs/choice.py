"""Which upload codec, and how large its packets: by the size that is asked for and the model.

```
bits a parameter   ≥ 0.1  `ecsq`     rate control by its step: real updates are sparse, and entropy coding lives on that
                   < 0.1  `sketch`   k follows from the size: below, noise in random directions is the harmless kind
```
Where uploads are summed under masks, a fixed number of bits for each number is all that adds up: `sketch` in fields.
Where what is decoded is clipped once more, random rounding spends half of the clip: `ecsq` rounds by rate and
distortion. Measured in docs/thousand.md and docs/privacy.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.codecs import Codec, parse_codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.summed import with_fields
from fl_mobile.errors import ConfigError
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Spec, fp32_bytes
from fl_mobile.wire import OVERHEAD_BYTES

AUTO = "auto"
TURNING_BITS = 0.1
"""Bits a parameter below which rotating an update is the better half of the bargain."""
CLIPPED = Ecsq(step=1.25, rounding="rdo")
"""Of clipped sums: 37 times smaller, 0.2 points below no codec at all (docs/privacy.md)."""


@dataclass(frozen=True)
class Target:
    """How small an upload shall be; neither is as the codec's own parameters say.

    Attributes:
        ratio: float32 bytes of the model over those of a packet; 0 is open.
        budget_bytes: Of a packet; 0 is open.
    """

    ratio: float = 0.0
    budget_bytes: int = 0

    @property
    def open(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.ratio or self.budget_bytes)

    def packet_bytes(self, spec: Spec) -> int:
        """Returns the length of a packet that is aimed at; 0 if nothing is."""
        return self.budget_bytes or (round(fp32_bytes(spec) / self.ratio) if self.ratio else 0)

    def bits(self, spec: Spec | None) -> float:
        """Returns bits a parameter; without a spec as far as a ratio says them, else 32."""
        if self.ratio:
            return 32 / self.ratio
        return 32.0 if spec is None or self.open else 8 * self.budget_bytes / max(1, fp32_bytes(spec) // 4)


def choose(
    text: str, target: Target, spec: Spec | None = None, *, masked: bool = False, clipped: bool = False
) -> tuple[Codec, str]:
    """Returns the codec that ``text`` names, or the one `AUTO` comes to, and why.

    Args:
        spec: Of the model; without one a budget in bytes does not decide.
        masked: Whether uploads are summed under masks.
        clipped: Whether the server clips what it decodes, and asks for no size.
    """
    if text != AUTO:
        return parse_codec(text), "as named"
    if masked:
        return Sketch(), "sketch: under masks only numbers of a fixed width add up"
    if clipped:
        return (
            CLIPPED,
            f"{CLIPPED.name}: what random rounding adds to an update's length, the clip takes off it",
        )
    bits = target.bits(spec)
    if target.open:
        return Ecsq(), "ecsq: no target-ratio or budget-bytes asks for less than its 100-fold"
    if bits >= TURNING_BITS:
        return Ecsq(), f"ecsq: {bits:.3g} bits a parameter are enough for entropy-coded levels (from {TURNING_BITS})"
    return Sketch(), f"sketch: below {TURNING_BITS} bits a parameter ({bits:.3g} here) noise is best spread over all"


def fitted(codec: Codec, target: Target, spec: Spec, seed: int, *, masked: int = 0) -> Codec:
    """Returns the codec of a run: a sketch with the run's projections, and as many numbers as the target allows.

    Args:
        masked: Clients of the largest masked sum; 0: there are none.
        seed: Of the run; it cannot be told from what the codec publishes.

    Raises:
        ConfigError: The model, or a packet's fixed part, is smaller than the sketch.
    """
    codec = with_fields(codec, masked) if masked else codec
    if not isinstance(codec, Sketch):
        return codec
    made = Sketch(codec.k, codec.bits, codec.width, codec.step, codec.seed or seed_for(seed, "sketch"))
    values = sum(t.size for t in spec.values() if t.trainable)
    if not target.open:
        beside = OVERHEAD_BYTES + 4 * sum(t.size for t in spec.values() if not t.trainable)
        room = target.packet_bytes(spec) - beside
        made = made.fitting(room)
        if made.payload_bytes > room:
            raise ConfigError(
                f"sketch cannot fit into {target.packet_bytes(spec)} bytes, of which header and statistics take"
                f" {beside} and the shortest payload {made.payload_bytes}; raise upload.budget-bytes, or lower"
                " upload.target-ratio"
            )
        while made.k > max(values, 1):  # a large budget for a small model
            made = made.fitting(made.payload_bytes - 1)
    elif made.k > values:
        raise ConfigError(
            f"upload.codec '{codec.name}' sends {made.k} numbers of a model that has {values:,} trainable parameters;"
            f" lower k, e.g. sketch:k={1 << max(0, (values // 8).bit_length() - 1)}, or use ecsq"
        )
    return made
