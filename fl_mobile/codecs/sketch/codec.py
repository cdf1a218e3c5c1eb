"""The codec `sketch`: k numbers an update, whatever the model's size; the same k directions for all clients of a round.

Packets are 16 to 2,000 times smaller than the update, at a known price: the decoded update is right on average over
rounds, and ``‖x − x̂‖²/‖x‖² ≈ (1 + q)·d/k − 1`` with q = 0.571, 0.133, 0.0358, 0.0096 at 1 to 4 bits a number. Clients
keep nothing. All trainable tensors take part, small ones too.

```
plain:   scale f32[blocks]   0: the block is all zeros and sends nothing more
         levels              ``bits`` each for every number of the other blocks, high bit first, padded with 0 to a byte
fields:  k fields of ``width`` bits, high bit first, padded with 0 to a byte: mod 2^width, two's complement
```
A level l of b bits stands for the l-th of the 2^b Lloyd–Max centroids of N(0, 1) in rising order, times the block's
scale ``Σz²/Σzc``, which makes it unbiased (EDEN, Vargaftik et al., ICML 2022). A field holds ``⌊z/step + U⌋``; fields
of several clients add up mod 2^width before anyone decodes them, as masked sums need it, and may wrap on their way:
only the sum has to fit. See `projection` for z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from fl_mobile.codecs.bits.fields import pack_fixed, unpack_fixed
from fl_mobile.codecs.bits.positions import pack_bits, read_bits
from fl_mobile.codecs.bits.reader import Reader
from fl_mobile.codecs.eden import POSITIVE_CENTROIDS
from fl_mobile.codecs.sketch.projection import blocks, bucket_sums, rotate, round_key, spread, unrotate
from fl_mobile.errors import ConfigError, nearest
from fl_mobile.seeds import uniform
from fl_mobile.tensors import Spec, Tensors, cut

_MAX = float(np.finfo(np.float32).max)
EVEN = 128
"""k is a multiple of this, or a power of two below it: blocks of a few numbers are no Gaussian."""

_EXCESS = {1: 0.571, 2: 0.133, 3: 0.0358, 4: 0.0096}
"""Bits → q, the error of a level in units of the number's energy."""


@dataclass(frozen=True)
class Sketch:
    """k signed sums of random buckets of coordinates, rotated, in few bits each.

    Attributes:
        k: Numbers of a packet.
        bits: Of each, plain.
        width: Bits of a field; 0: plain.
        step: Of fields, as the server publishes it.
        seed: Names the projection; a run publishes its own, every round has another (`for_round`).
    """

    k: int = 3072
    bits: int = 1
    width: int = 0
    step: float = 0.0
    seed: int = 0
    exact_up_to: int = 0
    unbiased: bool = True
    contracts: bool = False

    def __post_init__(self) -> None:
        small = 1 <= self.k < EVEN and self.k & (self.k - 1) == 0
        if not (small or (EVEN <= self.k < 2**28 and self.k % EVEN == 0)):
            raise ConfigError(f"sketch: k must be a multiple of {EVEN}, or a power of two below, got {self.k}")
        if self.bits not in POSITIVE_CENTROIDS:
            raise ConfigError(f"sketch: bits must be 1 to 4, got {self.bits}")
        if self.width and not (2 <= self.width <= 32 and 0 < self.step < 1e30):
            raise ConfigError(
                f"sketch: fields need width 2 to 32 and step above 0, got {self.width} and {self.step};"
                " e.g. sketch:k=2048,width=5,step=0.01"
            )
        if not 0 <= self.seed < 2**64 or (self.step and not self.width):
            raise ConfigError(f"sketch: seed must be an unsigned 64-bit number, and step needs width; got {self}")

    @property
    def name(self) -> str:
        """``sketch:k=3072,bits=1``, or ``sketch:k=2048,width=5,step=0.01``; with the seed, if it has one."""
        packing = f"width={self.width},step={self.step!r}" if self.width else f"bits={self.bits}"
        return f"sketch:k={self.k},{packing}" + (f",seed={self.seed}" if self.seed else "")

    @property
    def wire_name(self) -> str:
        """The name: a packet of another projection must not be decoded with this one."""
        return self.name

    def with_step(self, step: float) -> Sketch:
        """Returns the codec as the server publishes its fields in a round."""
        return replace(self, step=step)

    def for_round(self, round_num: int) -> Sketch:
        """Returns the codec with the projection of one round of the run that its seed names."""
        return replace(self, seed=round_key(self.seed, round_num))

    def error(self, values: int) -> float:
        """Returns the expected ``‖x − x̂‖²/‖x‖²`` of an update of so many values, plain.

        >>> Sketch(k=2048).error(225_034)
        171.8
        """
        return round((1 + _EXCESS[self.bits]) * -(-values // self.k) - 1, 1)

    def norm_gain(self, values: int) -> float:
        """Returns how much longer a decoded update can be: √((1 + q)·d/k), and a quarter for what chance adds."""
        excess = 0.0 if self.width else _EXCESS[self.bits]
        return 1.25 * math.sqrt((1 + excess) * -(-values // self.k))

    @property
    def payload_bytes(self) -> int:
        """Length of a payload none of whose blocks is all zeros."""
        if self.width:
            return -(-self.k * self.width // 8)
        return 4 * len(blocks(self.k)) + -(-self.k * self.bits // 8)

    def fitting(self, payload_bytes: int) -> Sketch:
        """Returns the codec with as many numbers as fit into so many bytes, rate control without a loop.

        >>> Sketch().fitting(856).k, Sketch().fitting(2).k
        (6656, 1)
        """
        most = max(1, 8 * payload_bytes // (self.width or self.bits))
        sizes = range(most - most % EVEN, EVEN - 1, -EVEN)
        sizes_below = (1 << bit for bit in range(6, -1, -1))
        tried = (replace(self, k=k) for k in (*sizes[:64], *sizes_below))
        return next((codec for codec in tried if codec.payload_bytes <= payload_bytes), replace(self, k=1))

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Returns the payload; plain ones do not use ``rng``, what is random in them is the projection."""
        if not any(tensor.size for tensor in delta.values()):
            return b""
        numbers = self.numbers(delta)
        if self.width:
            up = uniform(rng, self.k).astype(np.float64)
            return self.pack(np.clip(np.floor(numbers / self.step + up), -(2.0**62), 2.0**62).astype(np.int64))
        scales, levels, at = [], [], 0
        for length in blocks(self.k):
            scale, level = self._quantized(numbers[at : at + length])
            scales.append(scale)
            levels.append(level if scale else level[:0])
            at += length
        return np.array(scales, "<f4").tobytes() + pack_bits(np.concatenate(levels), self.bits)

    def numbers(self, delta: Tensors) -> np.ndarray:
        """Returns ``float64[k]``, what an update is before it is rounded."""
        return rotate(bucket_sums(delta, self.seed, self.k), self.seed)

    def _quantized(self, numbers: np.ndarray) -> tuple[np.float32, np.ndarray]:
        """Returns scale and levels of a block; sums are exact, so that every machine gets the same bits."""
        energy = math.fsum((numbers * numbers).tolist())
        if not energy:
            return np.float32(0), np.zeros(0, np.int64)
        centroids = _centroids(self.bits)
        unit = numbers / math.sqrt(energy / len(numbers))
        level = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, unit, side="right")
        return np.float32(min(energy / math.fsum((numbers * centroids[level]).tolist()), _MAX)), level

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Returns the tensors of a single client."""
        if self.width:
            return self.decode_sum(payload, spec, count=1)
        reader = Reader(payload)
        if not _size(spec):
            reader.end()
            return cut(np.zeros(0, np.float32), spec)
        lengths = blocks(self.k)
        scales = reader.finite("<f4", len(lengths)).astype(np.float64)
        live = np.repeat(scales != 0, lengths)
        levels = read_bits(reader, int(live.sum()), self.bits)
        reader.end()
        numbers = np.zeros(self.k)
        numbers[live] = _centroids(self.bits)[levels] * np.repeat(scales, lengths)[live]
        return self._tensors(numbers, spec)

    def add_payloads(self, payloads: Iterable[bytes | memoryview], spec: Spec) -> bytes:
        """Returns the payload that is the sum of others, field by field mod 2^width.

        Raises:
            WireError: A payload that is not as long as this profile's are.
        """
        total = np.zeros(self.count_fields(spec), np.int64)
        for payload in payloads:
            total = (total + self.read_fields(payload, spec)) & ((1 << self.width) - 1)
        return self.pack(total)

    def decode_sum(self, payload: bytes | memoryview, spec: Spec, count: int) -> Tensors:
        """Returns the mean of ``count`` clients from the sum of their payloads.

        Raises:
            WireError: Not such a sum.
        """
        return self.decode_total(self.signed(self.read_fields(payload, spec)), spec, count)

    def decode_total(self, total: np.ndarray, spec: Spec, count: int) -> Tensors:
        """Returns the mean of ``count`` clients from the sum of their numbers, ``int64[k]``, no longer modulo."""
        if not _size(spec):
            return cut(np.zeros(0, np.float32), spec)
        return self._tensors(total * (self.step / count), spec)

    def signed(self, fields: np.ndarray) -> np.ndarray:
        """Returns what a sum of fields, 0 … 2^width − 1, stands for: two's complement."""
        half = 1 << (self.width - 1)
        return (fields + half) % (2 * half) - half

    def count_fields(self, spec: Spec) -> int:
        """Returns the fields of a payload."""
        return self.k if _size(spec) else 0

    def read_fields(self, payload: bytes | memoryview, spec: Spec) -> np.ndarray:
        """Returns ``int64[k]``, the fields of a payload, 0 … 2^width − 1."""
        return unpack_fixed(memoryview(payload), self.width, self.count_fields(spec)).astype(np.int64)

    def pack(self, numbers: np.ndarray) -> bytes:
        """Returns the payload of ``int64[k]`` whole numbers, modulo 2^width."""
        return pack_fixed(numbers & ((1 << self.width) - 1), self.width)

    def _tensors(self, numbers: np.ndarray, spec: Spec) -> Tensors:
        turned = np.clip(unrotate(numbers, self.seed), -_MAX, _MAX).astype(np.float32)
        return cut(spread(turned, self.seed, _size(spec)), spec)


def _centroids(bits: int) -> np.ndarray:
    half = np.array(POSITIVE_CENTROIDS[bits])
    return np.concatenate([-half[::-1], half])


def _size(spec: Spec) -> int:
    return sum(tensor.size for tensor in spec.values())


_OPTIONS = tuple(field.name for field in fields(Sketch))[:5]


def parse_sketch(argument: str | None) -> Sketch:
    """Returns the codec for the text after ``sketch:``, e.g. ``k=3072,bits=1``.

    Raises:
        ConfigError: An unknown option, or a value that is not a number.
    """
    options: dict[str, float] = {}
    for part in filter(None, (argument or "").split(",")):
        key, _, text = part.strip().partition("=")
        if key not in _OPTIONS:
            raise ConfigError(f"sketch: unknown option '{key}'.{nearest(key, _OPTIONS)}")
        try:
            options[key] = float(text) if key == "step" else int(text)
        except ValueError:
            raise ConfigError(f"sketch: '{key}' must be a number, got '{text}'") from None
    return Sketch(**options)  # type: ignore[arg-type]
