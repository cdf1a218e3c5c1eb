"""The entropy coder: asymmetric numeral systems (Duda, PCS 2015), bit for bit what `constriction` writes.

The stream, in integers:

* State ``s`` (64 bits) and a stack of 32-bit words, both empty (0) at first. Symbols are encoded last to first.
* A model of ``A`` symbols with frequencies ``f`` (sum 2^20) has 24-bit borders
  ``L_i = ⌊(f_0 + … + f_{i−1})·(2^24 − A) / 2^20⌋ + i`` and ``L_A = 2^24``: every symbol keeps at least 2^−24.
* Encode ``i`` with ``w = L_{i+1} − L_i``: if ``⌊s / 2^40⌋ ≥ w``, push the low word of ``s`` and ``s = ⌊s / 2^32⌋``.
  Then ``s = ⌊s / w⌋·2^24 + L_i + s mod w``.
* At the end push the low and then the high word of ``s``, without the high word if it is 0, nothing if ``s`` is 0.
* Decode: if the state is empty, take the last word as high and the one before as low word (fewer words: fewer bits).
  ``r = s mod 2^24`` lies in ``[L_i, L_{i+1})``; then ``s = ⌊s / 2^24⌋·w + r − L_i``, and if ``s < 2^32`` and a word is
  left, ``s = s·2^32 + word``. After the last symbol state and stack are 0 and empty.

On the wire the words are little endian, bottom of the stack first, without the zero bytes at the top end.

``stack`` below is ``uint64[2 + words]``: the state, how many words there are, and the words.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.codecs.ecsq.models import PRECISION
from fl_mobile.kernels.compiled import compiled

_BITS = 24
_U24, _U32, _U40 = np.uint64(24), np.uint64(32), np.uint64(40)
_SHORT = 128
"""Fewer symbols are not worth a long table."""

_LOW24, _LOW32, _ONE = np.uint64(0xFFFFFF), np.uint64(0xFFFFFFFF), np.uint64(1)


@compiled
def borders_of(frequencies: np.ndarray) -> np.ndarray:
    """Returns ``int64[A + 1]``: where each symbol of a model begins among 2^24."""
    room = (1 << _BITS) - len(frequencies)
    borders = np.empty(len(frequencies) + 1, np.int64)
    below = 0
    for index in range(len(frequencies)):
        borders[index] = (below * room >> PRECISION) + index
        below += frequencies[index]
    borders[len(frequencies)] = 1 << _BITS
    return borders


@compiled
def new_stack(symbols: int) -> np.ndarray:
    """Returns an empty stack with room for so many symbols, each of which takes at most 24 bits."""
    stack = np.empty(2 + symbols * _BITS // 32 + 3, np.uint64)
    stack[:2] = 0
    return stack


@compiled
def push(stack: np.ndarray, symbols: np.ndarray, frequencies: np.ndarray) -> None:
    """Encodes symbols ``int64[n]``, the last one first; a model of one symbol takes no room."""
    if len(frequencies) < 2:
        return
    borders = borders_of(frequencies)
    state, count = stack[0], np.int64(stack[1])
    for index in range(len(symbols) - 1, -1, -1):
        low = borders[symbols[index]]
        width = np.uint64(borders[symbols[index] + 1] - low)
        if state >> _U40 >= width:
            stack[2 + count] = state & _LOW32
            count += 1
            state = state >> _U32
        whole = state // width
        state = (whole << _U24) + np.uint64(low) + (state - whole * width)
    stack[0], stack[1] = state, np.uint64(count)


@compiled
def to_bytes(stack: np.ndarray) -> np.ndarray:
    """Returns the stream, ``uint8[n]``; the stack is used up."""
    state, count = stack[0], np.int64(stack[1])
    while state > 0:
        stack[2 + count] = state & _LOW32
        count += 1
        state = state >> _U32
    out = stack[2 : 2 + count].astype(np.uint32).view(np.uint8)
    end = len(out)
    while end and out[end - 1] == 0:
        end -= 1
    return out[:end]


@compiled
def from_bytes(stream: np.ndarray) -> np.ndarray:
    """Returns the stack that `to_bytes` made ``uint8[n]`` of, ready to `pop`."""
    words = (len(stream) + 3) // 4
    stack = np.zeros(2 + words, np.uint64)
    padded = np.zeros(4 * words, np.uint8)
    padded[: len(stream)] = stream
    stack[2:] = padded.view(np.uint32)
    count, state = words, stack[0]
    for _ in range(min(2, words)):
        count -= 1
        state = state << _U32 | stack[2 + count]
    stack[0], stack[1] = state, np.uint64(count)
    return stack


@compiled
def pop(stack: np.ndarray, symbols: np.ndarray, frequencies: np.ndarray) -> None:
    """Decodes into ``int64[n]``; gives some symbols of the model whatever the bytes: check `is_empty` at the end."""
    if len(frequencies) < 2:
        symbols[:] = 0
        return
    borders = borders_of(frequencies)
    # The symbol at every 2^16th (2^20th) of the 2^24: few are left to choose from.
    shift, symbol = 16 if len(symbols) >= _SHORT else 20, 0
    near = np.empty((1 << _BITS - shift) + 1, np.int64)
    for part in range(len(near) - 1):
        while borders[symbol + 1] <= part << shift:
            symbol += 1
        near[part] = symbol
    near[len(near) - 1] = len(frequencies) - 1
    state, count = stack[0], np.int64(stack[1])
    for index in range(len(symbols)):
        rest = np.int64(state & _LOW24)
        symbol, above = near[rest >> shift], near[(rest >> shift) + 1] + 1
        if above - symbol > 1 and borders[symbol + 1] <= rest:  # mostly it is the first of the few
            symbol += 1
            while above - symbol > 1:
                middle = (symbol + above) >> 1
                if borders[middle] <= rest:
                    symbol = middle
                else:
                    above = middle
        low = borders[symbol]
        state = (state >> _U24) * np.uint64(borders[symbol + 1] - low) + np.uint64(rest - low)
        if count and not state >> _U32:
            count -= 1
            state = state << _U32 | stack[2 + count]
        symbols[index] = symbol
    stack[0], stack[1] = state, np.uint64(count)


@compiled
def is_empty(stack: np.ndarray) -> bool:
    """Whether every bit of the stream has been used."""
    return stack[0] == 0 and stack[1] == 0
