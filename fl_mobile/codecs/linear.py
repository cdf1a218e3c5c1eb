"""`linear`: fixed-width numbers that can be added before anyone decodes them, which is what secure aggregation needs.

A variable-length code cannot be summed; this profile can. The server publishes clip, bits, the number of devices and
the seed of the round's mask, and every device sends as many bits:

```
level = ⌊x/Δ + offset + U⌋ in 0 … 2^k − 1      Δ = clip/(2^(k−1) − 1), offset = 2^(k−1) − 1; for k = 1: 2·clip, ½
field = level                                  w = ⌈log2(n·(2^k − 1) + 1)⌉ bits, so n of them never overflow
sum   = Σ field mod 2^w                        blinding masks mod 2^w cancel in it
mean  = (sum/n − offset)·Δ·(d/m)               m of d coordinates travel, the same for all devices of a round
```
Payload: m fields of w bits, most significant bit first, the last byte padded with zeros. The m coordinates of the mask
are those with the smallest 64-bit raw outputs of ``Philox(key=seed)``, one per coordinate, ties to the lower index.
(Fixed-width sums: 1912.00131; random masks: Konečný et al., 1610.05492.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from fl_mobile.codecs.bits.fields import pack_fixed, unpack_fixed
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.errors import ConfigError, WireError, nearest
from fl_mobile.seeds import uniform
from fl_mobile.tensors import Spec, Tensors, cut

_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Linear:
    """Stochastic k-bit levels in fields wide enough for the sum over all devices.

    Unbiased for values within the clip, with ``|x − x̂| ≤ Δ`` where a coordinate travels; values beyond are clipped and
    the promise ends there.

    Attributes:
        clip: Largest magnitude that can be sent.
        bits: k, 1 to 16.
        devices: n, how many payloads may be added.
        keep: Share of the coordinates that travel each round.
        seed: Chooses them; the server publishes a new one every round.
    """

    clip: float
    bits: int = 8
    devices: int = 100
    keep: float = 1.0
    seed: int = 0
    exact_up_to: int = 0
    unbiased: bool = True
    contracts: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.clip < 1e30 and 1 <= self.bits <= 16 and 1 <= self.devices < 2**16 and 0 < self.keep <= 1):
            raise ConfigError(
                "linear needs clip > 0, bits 1 to 16, devices 1 to 65535 and keep in (0, 1],"
                f" got {self.clip}, {self.bits}, {self.devices}, {self.keep}; e.g. linear:clip=0.01,bits=4,devices=100"
            )
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"linear: seed must be an unsigned 64-bit number, got {self.seed}")

    @property
    def name(self) -> str:
        """``linear:clip=0.01,bits=4,devices=100,keep=1.0,seed=0``: all that a decoder must know."""
        return "linear:" + ",".join(f"{key}={getattr(self, key)!r}" for key in _OPTIONS)

    @property
    def wire_name(self) -> str:
        """The name: a payload of another clip or width must not be added."""
        return self.name

    @property
    def width(self) -> int:
        """Bits of a field: ``⌈log2(n·(2^k − 1) + 1)⌉``.

        >>> [Linear(1.0, bits, devices=100).width for bits in (1, 4, 8)]
        [7, 11, 15]
        """
        return (self.devices * (2**self.bits - 1)).bit_length()

    @property
    def step(self) -> float:
        """Δ, the distance between levels."""
        return 2 * self.clip if self.bits == 1 else self.clip / (2 ** (self.bits - 1) - 1)

    @property
    def offset(self) -> float:
        """The level of zero."""
        return 0.5 if self.bits == 1 else 2.0 ** (self.bits - 1) - 1

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns one device's payload."""
        values = np.concatenate([tensor.ravel() for tensor in delta.values()]) if delta else np.zeros(0, np.float32)
        sent = np.clip(values[self.positions(len(values))].astype(np.float64), -self.clip, self.clip)
        up = uniform(rng, len(sent)).astype(np.float64)
        levels = np.floor(sent / self.step + self.offset + up).astype(np.int64)
        return self._pack(np.minimum(levels, 2**self.bits - 1))

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the tensors of a single device."""
        return self.decode_sum(payload, spec, count=1)

    def add_payloads(self, payloads: Iterable[bytes | memoryview], spec: Spec) -> bytes:
        """Returns the payload that is the sum of others, field by field modulo 2^w; the memory is that of one.

        Raises:
            WireError: A payload that is not as long as this profile's are.
        """
        total = np.zeros(self.count_fields(spec), np.int64)
        for payload in payloads:
            total = (total + self.read_fields(payload, spec)) & ((1 << self.width) - 1)
        return self._pack(total)

    def decode_sum(self, payload: bytes | memoryview, spec: Spec, count: int) -> Tensors:
        """Returns the mean of ``count`` devices from the sum of their payloads.

        Raises:
            WireError: Not such a sum, or of more devices than the width allows.
        """
        if not 1 <= count <= self.devices:
            raise WireError("value", f"linear: a sum of {count} payloads, expected 1 to {self.devices}")
        return self.decode_total(self.read_fields(payload, spec), spec, count)

    def decode_total(self, total: np.ndarray, spec: Spec, count: int) -> Tensors:
        """Returns the mean of ``count`` devices from the sum of their levels, ``int64[m]``, no longer modulo.

        Raises:
            WireError: So many devices cannot reach it.
        """
        largest = count * (2**self.bits - 1)
        if len(total) and int(total.max()) > largest:
            raise WireError("value", f"linear: sum {total.max()} in a field, {count} devices reach at most {largest}")
        size = _size(spec)
        values = np.zeros(size, np.float32)
        scale = self.step * (size / max(len(total), 1))
        values[self.positions(size)] = np.clip((total / count - self.offset) * scale, -_MAX, _MAX)
        return cut(values, spec)

    def read_fields(self, payload: bytes | memoryview, spec: Spec) -> np.ndarray:
        """Returns ``int64[m]``, the fields of a payload."""
        reader = Reader(payload)
        count = self.count_fields(spec)
        total = unpack_fixed(reader.take(-(-count * self.width // 8)), self.width, count).astype(np.int64)
        reader.end()
        return total

    def signed(self, fields: np.ndarray) -> np.ndarray:
        """Returns what a sum of fields stands for: itself, they are wide enough for it."""
        return fields

    def count_fields(self, spec: Spec) -> int:
        """Returns the fields of a payload."""
        return self._count(_size(spec))

    def positions(self, size: int) -> np.ndarray:
        """Returns the rising coordinates that travel this round, ``int64[m]``."""
        if self.keep == 1:
            return np.arange(size)
        draws: np.ndarray = np.random.Philox(key=self.seed).random_raw(size)  # type: ignore[assignment]
        return np.sort(np.argsort(draws, kind="stable")[: self._count(size)])

    def _count(self, size: int) -> int:
        return min(size, max(1, round(self.keep * size)))

    def _pack(self, numbers: np.ndarray) -> bytes:
        return pack_fixed(numbers, self.width)


_OPTIONS = tuple(field.name for field in fields(Linear))[:5]


def _size(spec: Spec) -> int:
    return sum(tensor.size for tensor in spec.values())


def parse_linear(argument: str | None) -> Linear:
    """Returns the codec for the text after ``linear:``, e.g. ``clip=0.01,bits=4,devices=100``.

    Raises:
        ConfigError: An unknown option, a value that is not a number, or no clip.
    """
    options: dict[str, float] = {}
    for part in filter(None, (argument or "").split(",")):
        key, _, text = part.strip().partition("=")
        if key not in _OPTIONS:
            raise ConfigError(f"linear: unknown option '{key}'.{nearest(key, _OPTIONS)}")
        try:
            options[key] = float(text) if key in ("clip", "keep") else int(text)
        except ValueError:
            raise ConfigError(f"linear: '{key}' must be a number, got '{text}'") from None
    clip = options.get("clip", math.nan)
    whole = {key: int(value) for key, value in options.items() if key not in ("clip", "keep")}
    return Linear(
        clip=clip,
        bits=whole.get("bits", 8),
        devices=whole.get("devices", 100),
        keep=options.get("keep", 1.0),
        seed=whole.get("seed", 0),
    )
