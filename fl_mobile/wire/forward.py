"""Forwarded sums: where all clients of a round share a projection, what the round did to the model is k whole numbers.

A lattice point (`wire.lattice`) moves by whole steps, all values of a bucket by the same number, with their own signs:

```
n_{t+1} = n_t + P_tᵀ·g_t·s_t       P_t the buckets of `codecs.sketch.projection` in round t, s_t int8[k], g_t ≥ 1
```
A client at version v lands on version t by the numbers of rounds v … t − 1, in integers from end to end. The packet is
one of kind 3: statistics travel as they are now, trainable tensors as

```
for each round from v to t − 1:  2g + f LEB128   g lattice steps a number; 0: nothing moved, and no numbers follow
numbers                          zlib stream (RFC 1950) of the s of rounds with g > 0, round after round:
                                 f = 0: one byte each, two's complement
                                 f = 1: they are −1, 0 or 1, five to a byte, Σ (s_j + 1)·3^j; zeros fill the last one
```
An empty stream is left out. The stream is made with Huffman codes alone: numbers of few levels have no repetitions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs.bits.reader import Reader, varint
from fl_mobile.codecs.entropy import Deflate
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.sketch.projection import bucket_sums, spread
from fl_mobile.errors import WireError
from fl_mobile.tensors import Spec, Tensors, cut
from fl_mobile.wire.lattice import FURTHEST, Lattice

LARGEST = 127
"""Magnitude of a number: it travels as a byte."""

MOST_ROUNDS = 10_000
"""Rounds that one packet takes a client over."""

_PLACES = 3 ** np.arange(5)
_FIVES = (np.arange(3**5)[:, None] // _PLACES % 3 - 1).astype(np.int8)
"""Byte → the five numbers it stands for."""


class Sums(NamedTuple):
    """What a round did to the lattice point.

    Attributes:
        gain: g, lattice steps a number; 0: nothing moved.
        numbers: ``int8[k]``.
    """

    gain: int
    numbers: np.ndarray

    @property
    def few(self) -> bool:
        """Whether no number is but −1, 0 and 1: five then share a byte."""
        return self.gain > 0 and bool(self.numbers.min(initial=0) >= -1 and self.numbers.max(initial=0) <= 1)


@dataclass(frozen=True)
class Forwarding:
    """How sums become packets and points again.

    Attributes:
        lattice: That models move on.
        upload: The run's codec, which names the projections.
    """

    lattice: Lattice
    upload: Sketch
    exact_up_to: int = 0
    unbiased: bool = True
    contracts: bool = True

    @property
    def name(self) -> str:
        """``sums of sketch:…``: the codec of its packets, which only the layout asks for."""
        return f"sums of {self.upload.wire_name} at {self.lattice.step!r}"

    wire_name = name

    def encode(self, delta: Tensors, rng: np.random.Generator) -> bytes:
        """Not used: `pack` makes the payload."""
        raise NotImplementedError

    def decode(self, payload: memoryview, spec: Spec) -> Tensors:
        """Not used: `unpack` reads the payload."""
        raise NotImplementedError

    @cached_property
    def trainable(self) -> Spec:
        """What moves on the lattice."""
        return {path: tensor for path, tensor in self.lattice.spec.items() if tensor.trainable}

    @cached_property
    def _layout(self) -> wire.Layout:
        return wire.Layout(self.lattice.spec, self)

    @cached_property
    def _values(self) -> int:
        return sum(tensor.size for tensor in self.trainable.values())

    def key(self, round_num: int) -> int:
        """Returns the key of a round's projection."""
        return self.upload.for_round(round_num).seed

    def pack(self, weights: Tensors, history: Sequence[Sums], *, version: int, held_version: int) -> bytes:
        """Returns the packet that takes a client from one version to another.

        Args:
            weights: Of ``version``; the statistics travel.
            history: Of rounds ``held_version`` to ``version`` − 1.
        """
        gains = b"".join(varint(2 * sums.gain + sums.few) for sums in history)
        numbers = b"".join(_bytes_of(sums) for sums in history if sums.gain)
        deflater = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
        stream = deflater.compress(numbers) + deflater.flush() if numbers else b""
        return self._layout.seal(wire.Header(wire.MODEL_SUMS, version, held_version), weights, gains + stream)

    def unpack(self, packet: bytes, held: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the client's new point and the weights it trains from.

        Raises:
            WireError: The packet is damaged, of another model or projection, or its history has a gap.
        """
        header, statistics, payload = self._layout.open(packet)
        rounds = header.round_num - header.base_round
        if header.kind != wire.MODEL_SUMS or not 0 <= rounds <= MOST_ROUNDS:
            raise WireError("round", f"sums of at most {MOST_ROUNDS} rounds expected, got {rounds}")
        reader = Reader(payload)
        heads = [reader.varint(limit=2 * FURTHEST + 1) for _ in range(rounds)]
        moving = [t for t, head in enumerate(heads) if head]
        history: list[Sums] = []
        if moving:
            size = sum(_length(self.upload.k, few=heads[t] & 1) for t in moving)
            inflated = Deflate().decode(reader.take(reader.left), size)
            if len(inflated) != size:
                raise WireError("truncated", f"numbers of {len(moving)} rounds take {size} bytes, got {len(inflated)}")
            numbers = Reader(inflated)
            history = [_sums_of(numbers, heads[t], self.upload.k) for t in moving]
        reader.end()
        moved = self._flat(held) + self._moves([header.base_round + t for t in moving], history)
        if np.abs(moved).max(initial=0) > FURTHEST:
            raise WireError("value", f"the sums lead more than {FURTHEST} lattice steps away from the first model")
        point = cut(moved.astype(np.int32), self.trainable)
        return point, self.lattice.weights(point, statistics)

    def rewound(self, point: Tensors, history: Sequence[Sums], *, held_version: int) -> Tensors:
        """Returns the point of an earlier version, by the sums of the rounds from there to ``point``."""
        rounds = range(held_version, held_version + len(history))
        return cut((self._flat(point) - self._moves(rounds, history)).astype(np.int32), self.trainable)

    def _flat(self, point: Tensors) -> np.ndarray:
        return np.concatenate([point[path].reshape(-1) for path in self.trainable]).astype(np.int64)

    def _moves(self, rounds: Sequence[int], history: Sequence[Sums]) -> np.ndarray:
        total = np.zeros(self._values, np.int64)
        for t, sums in zip(rounds, history, strict=True):
            if sums.gain:
                total += spread(sums.numbers.astype(np.int64) * sums.gain, self.key(t), self._values)
        return total

    def between(self, before: Tensors, after: Tensors, round_num: int) -> Sums | None:
        """Returns what takes one point to the next, None if no sums do.

        Args:
            before: ``int32`` coordinates of version ``round_num``.
            after: Of the one that follows.
        """
        steps = {path: after[path].astype(np.int64) - before[path] for path in self.trainable}
        flat = np.concatenate([value.reshape(-1) for value in steps.values()]) if steps else np.zeros(0, np.int64)
        key, values = self.key(round_num), self._values
        occupied = spread_counts(key, values, self.upload.k)
        if np.abs(flat).max(initial=0) >= 1 << 22:
            return None  # float32 would not hold it
        sums = bucket_sums({path: value.astype(np.float32) for path, value in steps.items()}, key, self.upload.k)
        each = np.rint(sums / np.maximum(occupied, 1)).astype(np.int64)
        if not np.array_equal(spread(each, key, values), flat):
            return None
        gain = int(np.gcd.reduce(each))
        numbers = each // max(gain, 1)
        return Sums(gain, numbers.astype(np.int8)) if np.abs(numbers).max(initial=0) <= LARGEST else None


def _length(k: int, few: int) -> int:
    return -(-k // 5) if few else k


def _bytes_of(sums: Sums) -> bytes:
    if not sums.few:
        return sums.numbers.astype("i1").tobytes()
    digits = np.ones(5 * _length(len(sums.numbers), few=1), np.int64)
    digits[: len(sums.numbers)] += sums.numbers
    return (digits.reshape(-1, 5) @ _PLACES).astype("u1").tobytes()


def _sums_of(reader: Reader, head: int, k: int) -> Sums:
    gain, few = head >> 1, head & 1
    if not gain:
        raise WireError("value", "numbers of a round in which nothing moved")
    if not few:
        return Sums(gain, reader.array("i1", k))
    packed = reader.array("u1", _length(k, few))
    if packed.max(initial=0) >= len(_FIVES):
        raise WireError("value", f"a byte of five numbers is below {len(_FIVES)}, got {packed.max()}")
    numbers = _FIVES[packed].reshape(-1)
    if numbers[k:].any():
        raise WireError("value", f"{k} numbers are filled up with zeros, got others")
    return Sums(gain, numbers[:k])


def spread_counts(key: int, values: int, k: int) -> np.ndarray:
    """Returns ``int64[k]``: how many values each bucket of a projection holds."""
    from fl_mobile.codecs.sketch.projection import codes_of

    return np.bincount(codes_of(key, values, k) >> 1, minlength=k)
