"""The codec itself: step, rounding, the smallest of the possible payloads, and the way back."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fl_mobile.codecs.base import Reader
from fl_mobile.codecs.ecsq.ans import coder_named
from fl_mobile.codecs.ecsq.factors import Factors, extract, shifted
from fl_mobile.codecs.ecsq.layout import Layout, matrix_shape
from fl_mobile.codecs.ecsq.lowrank import MAX_RANK
from fl_mobile.codecs.ecsq.payload import read_levels, write_levels
from fl_mobile.codecs.ecsq.plan import class_plans, flat_bits, flat_plans
from fl_mobile.codecs.ecsq.rounding import MAX_LEVEL, Levels, mean_shifts, rate_distortion, stochastic, to_nearest
from fl_mobile.errors import ConfigError, WireError, nearest
from fl_mobile.tensors import Spec, Tensors

ZERO, RAW, CODED = 0, 1, 2
_HEAD = struct.Struct("<Bfbb")
_MAX = float(np.finfo(np.float32).max)
_SAFE = 1e28
"""Below this step no level and no low-rank part can leave float32's range."""

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

_CLEARLY = 0.9
"""With classes below this share of what positions and signs alone take without, the other way is not tried."""

Rounding = Literal["stochastic", "rdo", "nearest"]
_OPTIONS = ("step", "abs", "rounding", "rank")
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
        rank: Most directions of a kernel's low-rank part; 0 switches it off.
        coder: ``auto`` (constriction if installed), ``constriction`` or ``python``; the bytes are the same.
    """

    step: float = 8.0
    rounding: Rounding = "stochastic"
    absolute: bool = False
    rank: int = MAX_RANK
    coder: Literal["auto", "constriction", "python"] = "auto"
    exact_up_to: int = 0

    def __post_init__(self) -> None:
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ConfigError(f"ecsq: step must be a number above 0, got {self.step}, e.g. ecsq:step=8")
        if self.rounding not in _DEFAULT_STEPS:
            raise ConfigError(f"ecsq: unknown rounding '{self.rounding}'.{nearest(self.rounding, _DEFAULT_STEPS)}")
        if not 0 <= self.rank <= MAX_RANK:
            raise ConfigError(f"ecsq: rank must be 0 (no low-rank part) to {MAX_RANK}, got {self.rank}")
        coder_named(self.coder)

    @property
    def name(self) -> str:
        """``ecsq``, ``ecsq:step=2,rounding=rdo``, ``ecsq-py:abs=0.001``; `parse_ecsq` reads it back."""
        options = []
        if self.absolute or self.step != 8.0:
            options.append(f"{'abs' if self.absolute else 'step'}={self.step!r}".removesuffix(".0"))
        if self.rounding != "stochastic":
            options.append(f"rounding={self.rounding}")
        if self.rank != MAX_RANK:
            options.append(f"rank={self.rank}")
        return ("ecsq-py" if self.coder == "python" else "ecsq") + (":" + ",".join(options) if options else "")

    @property
    def wire_name(self) -> str:
        """``ecsq``: step and rounding travel in the payload, so a server may change them from round to round."""
        return "ecsq"

    @property
    def unbiased(self) -> bool:
        """True for stochastic rounding."""
        return self.rounding == "stochastic"

    def with_step(self, step: float) -> Ecsq:
        """Returns this codec with another step, for rate control; ids and packets stay compatible."""
        return replace(self, step=step)

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the shortest of: nothing but zeros, coded with or without classes, raw float32."""
        values = np.concatenate([tensor.ravel() for tensor in delta.values()]) if delta else np.zeros(0, np.float32)
        step = self._delta(values)
        shapes = [matrix_shape(tensor.shape) for tensor in delta.values()]
        offsets = _offsets(shapes)
        if not step:
            return bytes([ZERO])
        residual, factors, numbers, shifts = values, Factors((0,) * len(shapes)), np.zeros(0, np.int64), (0, 0)
        if self.rank and self.rounding != "nearest":
            residual, factors, numbers = extract(values, shapes, offsets, step, self.rounding, self.rank)
        if self.rounding == "stochastic":
            levels = stochastic(residual, step, rng)
        elif self.rounding == "nearest":
            levels = to_nearest(values, step)
        else:
            levels = rate_distortion(residual, step, shapes, offsets)
            shifts = mean_shifts(residual, levels, step)
        levels = _with_factors(levels, numbers, len(values))
        if not len(levels.positions):
            return bytes([ZERO])
        payload = _HEAD.pack(CODED, step, *shifts) + self._smallest(levels, factors, shapes)
        return payload if len(payload) < 1 + 4 * len(values) else bytes([RAW]) + values.astype("<f4").tobytes()

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the tensors; every size comes from ``spec``."""
        reader = Reader(payload)
        total = sum(tensor.size for tensor in spec.values())
        form = reader.take(1)[0]
        if form == RAW:
            values = reader.finite("<f4", total)
        elif form == CODED:
            values = self._decode_levels(reader, spec, total)
        elif form == ZERO:
            values = np.zeros(total, np.float32)
        else:
            raise WireError("value", f"ecsq: unknown form {form}, expected 0 (zeros), 1 (float32) or 2 (coded)")
        reader.end()
        ends = np.cumsum([tensor.size for tensor in spec.values()])
        parts = np.split(values, ends[:-1]) if spec else []
        return {path: part.reshape(tensor.shape) for part, (path, tensor) in zip(parts, spec.items(), strict=True)}

    def _delta(self, values: np.ndarray) -> float:
        """Returns Δ as a float32 number, 0 if all values are; no level exceeds `MAX_LEVEL` with it."""
        square = float(np.einsum("i,i", values, values))  # not np.dot: BLAS sums in an order that depends on threads
        if not 1e-25 < square < 1e30:
            wide = values.astype(np.float64)
            square = float(np.einsum("i,i", wide, wide))
        if not square:
            return 0.0
        step = self.step if self.absolute else _round(self.step * math.sqrt(square / len(values)))
        # No value exceeds the norm, so only a fine step needs a look at the largest value itself.
        if step * (MAX_LEVEL - 1) < math.sqrt(square):
            step = max(step, float(np.abs(values).max()) / (MAX_LEVEL - 1))
        return float(np.float32(min(max(step, _SMALLEST), _MAX)))

    def _smallest(self, levels: Levels, factors: Factors, shapes: list[tuple[int, int]]) -> bytes:
        shapes = factors.shapes(shapes)
        offsets = _offsets(shapes)
        plans = class_plans(levels.positions, levels.magnitudes, levels.negative, shapes, offsets)
        coder = coder_named(self.coder)
        payload = write_levels(levels, factors, Layout(shapes, plans), coder)
        if all(plan.rows is None and plan.columns is None and plan.signs is None for plan in plans):
            return payload
        if 8 * len(payload) < _CLEARLY * flat_bits(levels.positions, shapes, offsets):
            return payload
        flat = flat_plans(levels.positions, levels.magnitudes, shapes, offsets)
        return min(payload, write_levels(levels, factors, Layout(shapes, flat), coder), key=len)

    def _decode_levels(self, reader: Reader, spec: Spec, total: int) -> np.ndarray:
        (step,), shifts = reader.finite("<f4", 1), reader.array("i1", 2)
        if not step > 0:
            raise WireError("value", f"ecsq: the step must be above 0, got {step}")
        shapes = [matrix_shape(tensor.shape) for tensor in spec.values()]
        levels, factors = read_levels(reader, shapes, coder_named(self.coder))
        signed = np.where(levels.negative, -levels.magnitudes, levels.magnitudes)
        values = np.zeros(total, np.float32)
        mine = levels.positions < total
        at = levels.positions[mine]
        sizes = shifted(signed[mine], (int(shifts[0]), int(shifts[1]))) * (float(step) / 256)
        if any(factors.ranks):
            numbers = np.zeros(sum(r * c for r, c in factors.shapes(shapes)) - total, np.int64)
            numbers[levels.positions[~mine] - total] = signed[~mine]
            offsets, scale = _offsets(shapes), factors.scale(float(step))
            for index, matrix in factors.low_rank(numbers, shapes).items():
                low = np.multiply(matrix, scale, out=matrix).ravel()
                inside = (at >= offsets[index]) & (at < offsets[index + 1])
                sizes[inside] += low[at[inside] - offsets[index]]
                values[offsets[index] : offsets[index + 1]] = low if step < _SAFE else np.clip(low, -_MAX, _MAX)
        values[at] = np.clip(sizes, -_MAX, _MAX)
        return values


def _round(step: float) -> float:
    """Returns 12 leading bits: processors sum in different orders, which must not make other packets."""
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 4096) / 4096, exponent)


def _offsets(shapes: list[tuple[int, int]]) -> np.ndarray:
    return np.cumsum([0, *(r * c for r, c in shapes)], dtype=np.int64)


def _with_factors(levels: Levels, numbers: np.ndarray, total: int) -> Levels:
    """Returns the levels followed by those of the factors, whose positions come after all tensors'."""
    at = np.flatnonzero(numbers)
    return Levels(
        np.concatenate([levels.positions, at + total]),
        np.concatenate([levels.magnitudes, np.abs(numbers[at])]),
        np.concatenate([levels.negative, numbers[at] < 0]),
    )


def parse_ecsq(argument: str | None, coder: Literal["auto", "constriction", "python"] = "auto") -> Ecsq:
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
    rank = options.get("rank", str(MAX_RANK))
    if not rank.isascii() or not rank.isdigit():
        raise ConfigError(f"ecsq: the rank must be a whole number, got '{rank}'")
    return Ecsq(step, rounding, "abs" in options, int(rank), coder)  # type: ignore[arg-type]
