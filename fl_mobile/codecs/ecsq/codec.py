"""The codec's options, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fl_mobile.codecs.ecsq.records import MAX_RANK
from fl_mobile.errors import ConfigError, WireError, nearest
from fl_mobile.tensors import Spec, Tensors, cut

Rounding = Literal["stochastic", "rdo", "nearest"]
_OPTIONS = ("step", "abs", "examples", "rounding", "rank")
_DEFAULT_STEPS: dict[str, float] = {"stochastic": 8.0, "rdo": 2.0, "nearest": 2.0}


@dataclass(frozen=True)
class Ecsq:
    """Entropy-coded scalar quantization with row, column and sign contexts; see the package for the format.

    With stochastic rounding it is unbiased and ``|x − x̂| ≤ Δ``; with ``rdo`` it is biased and has the smallest error
    for its bytes. Everything but the name is the encoder's choice: any of them decodes any other.

    Attributes:
        step: Δ as a multiple of the root mean square of the whole update, or itself if ``absolute``.
        rounding: ``stochastic``, ``rdo``, or ``nearest``, which keeps whole multiples of Δ exactly.
        absolute: Whether ``step`` is Δ itself.
        examples: How many examples a client has that takes this step; another's is finer or coarser in inverse
            proportion to its own. A server adds updates times examples, and so does it their errors: bits go where
            they count. 0: the step is everyone's.
        rank: Most directions of a kernel's low-rank part; 0 switches it off.
    """

    step: float = 8.0
    rounding: Rounding = "stochastic"
    absolute: bool = False
    examples: int = 0
    rank: int = MAX_RANK
    exact_up_to: int = 0

    def __post_init__(self) -> None:
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ConfigError(f"ecsq: step must be a number above 0, got {self.step}, e.g. ecsq:step=8")
        if self.rounding not in _DEFAULT_STEPS:
            raise ConfigError(f"ecsq: unknown rounding '{self.rounding}'.{nearest(self.rounding, _DEFAULT_STEPS)}")
        if self.examples < 0:
            raise ConfigError(f"ecsq: examples must be 1 or more, got {self.examples}, e.g. ecsq:examples=50")
        if not 0 <= self.rank <= MAX_RANK:
            raise ConfigError(f"ecsq: rank must be 0 (no low-rank part) to {MAX_RANK}, got {self.rank}")

    @property
    def name(self) -> str:
        """``ecsq``, ``ecsq:step=2,rounding=rdo``, ``ecsq:abs=0.001``; `parse_ecsq` reads it back."""
        options = []
        if self.absolute or self.step != 8.0:
            options.append(f"{'abs' if self.absolute else 'step'}={self.step!r}".removesuffix(".0"))
        if self.examples:
            options.append(f"examples={self.examples}")
        if self.rounding != "stochastic":
            options.append(f"rounding={self.rounding}")
        if self.rank != MAX_RANK:
            options.append(f"rank={self.rank}")
        return "ecsq" + (":" + ",".join(options) if options else "")

    @property
    def wire_name(self) -> str:
        """``ecsq``: step and rounding travel in the payload, so a server may change them from round to round."""
        return "ecsq"

    @property
    def unbiased(self) -> bool:
        """True for stochastic rounding."""
        return self.rounding == "stochastic"

    @property
    def contracts(self) -> bool:
        """True for the biased ways of rounding, and below twice the rms for stochastic rounding: (Δ/rms)²/4 < 1."""
        return self.rounding != "stochastic" or (not self.absolute and not self.examples and self.step < 2)

    def contracting(self, share: float = 0.25) -> Ecsq:
        """Returns a codec that contracts, rounding by rate and distortion; packets stay compatible.

        Args:
            share: Its step, as a share of the stochastic one. A quarter takes 1.4–1.8 kB where stochastic rounding at
                step 8 takes 1.9–2.5 kB (updates of an MLP with 55,210 weights, ``docs/combinations.md``).
        """
        return self if self.contracts else replace(self, rounding="rdo", step=self.step * share)

    def with_step(self, step: float) -> Ecsq:
        """Returns this codec with another step, for rate control; ids and packets stay compatible."""
        return replace(self, step=step)

    def for_examples(self, examples: int) -> Ecsq:
        """Returns this codec as a client with so many examples uses it."""
        if not self.examples:
            return self
        return replace(self, step=self.step * self.examples / max(examples, 1), examples=0)

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the shortest of: nothing but zeros, coded with or without classes, raw float32."""
        from fl_mobile.codecs.ecsq import layout, payload

        values = np.concatenate([tensor.ravel() for tensor in delta.values()]) if delta else np.zeros(0, np.float32)
        matrices = tuple(layout.matrix_shape(tensor.shape) for tensor in delta.values())
        return payload.encode(
            values=values,
            matrices=matrices,
            wanted=(self.step, self.absolute),
            rounding=self.rounding,
            rank=self.rank,
            rng=rng,
        )

    def encode_each(self, rows: np.ndarray, spec: Spec, keys: Sequence[int], examples: Sequence[int]) -> list[bytes]:
        """Returns what clients with so many examples make of their updates: `encode`, in few calls.

        Args:
            rows: ``float32[m, n]``: the tensors of each, end to end.
            spec: Of the tensors.
            keys: Of each client's generator, ``rng_for(seed, "codec")`` is ``philox(seed_for(seed, "codec"))``.
            examples: Of each client.
        """
        from fl_mobile.codecs.ecsq import layout, payload

        return payload.encode_each(
            rows=rows,
            matrices=tuple(layout.matrix_shape(tensor.shape) for tensor in spec.values()),
            wanted=[(self.for_examples(own).step, self.absolute) for own in examples],
            rounding=self.rounding,
            rank=self.rank,
            keys=keys,
        )

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the tensors; every size comes from ``spec``."""
        from fl_mobile.codecs.ecsq.payload import decode

        return cut(decode(payload, [tensor.shape for tensor in spec.values()]), spec)

    def decode_each(self, payloads: Sequence[memoryview], spec: Spec) -> tuple[np.ndarray, dict[int, WireError]]:
        """Returns ``float32[m, n]``, the tensors of each end to end, and what `decode` would have raised, by number."""
        from fl_mobile.codecs.ecsq.payload import decode_each

        return decode_each(payloads, [tensor.shape for tensor in spec.values()])


def parse_ecsq(argument: str | None) -> Ecsq:
    """Returns the codec for the text after ``ecsq:``, e.g. ``step=4,rounding=rdo`` or ``abs=0.001``.

    Raises:
        ConfigError: An unknown option, or a value that is not a number.
    """
    options: dict[str, str] = {}
    for part in (argument or "").split(","):
        key, _, value = part.strip().partition("=")
        if key and key not in _OPTIONS:
            raise ConfigError(f"ecsq: unknown option '{key}'.{nearest(key, _OPTIONS)}")
        if key:
            options[key] = value
    if "abs" in options and "step" in options:
        raise ConfigError("ecsq: give 'step' (in multiples of the update's rms) or 'abs' (the step itself), not both")
    rounding = options.get("rounding", "stochastic")
    text = options.get("abs", options.get("step"))
    try:
        step = _DEFAULT_STEPS.get(rounding, 8.0) if text is None else float(text)
    except ValueError:
        raise ConfigError(f"ecsq: the step must be a number, got '{text}', e.g. ecsq:step=8") from None
    whole = {"examples": options.get("examples", "0"), "rank": options.get("rank", str(MAX_RANK))}
    for key, value in whole.items():
        if not value.isascii() or not value.isdigit():
            raise ConfigError(f"ecsq: {key} must be a whole number, got '{value}'")
    if "examples" in options and not int(whole["examples"]):
        raise ConfigError("ecsq: examples must be 1 or more, got 0; leave it out for the same step for all")
    return Ecsq(step, rounding, "abs" in options, int(whole["examples"]), int(whole["rank"]))  # type: ignore[arg-type]
