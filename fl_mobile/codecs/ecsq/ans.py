"""The entropy coder: asymmetric numeral systems (Duda, PCS 2015), in Rust through `constriction` or in plain Python.

Both produce the same bytes, so a device without the library talks to a server that has it. The stream, in integers:

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
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np

from fl_mobile.codecs.ecsq.models import PRECISION, TOTAL
from fl_mobile.errors import ConfigError

_BITS = 24


class Run(NamedTuple):
    """Symbols that share a model: ``int32[n]`` below ``len(frequencies)``."""

    symbols: np.ndarray
    frequencies: list[int]


class Decoder(Protocol):
    """Takes symbols from a stream; never fails, whatever the bytes: check `is_empty` at the end."""

    def take(self, count: int, frequencies: list[int]) -> np.ndarray:
        """Returns the next ``count`` symbols, ``int32[count]``."""
        ...

    def is_empty(self) -> bool:
        """Whether every bit of the stream has been used."""
        ...


class Coder(NamedTuple):
    """One implementation of the stream above."""

    encode: Callable[[Iterable[Run]], bytes]
    decoder: Callable[[bytes], Decoder]


def _python_encode(runs: Iterable[Run]) -> bytes:
    state, words = 0, []
    for symbols, frequencies in reversed(list(runs)):
        borders = _borders(frequencies)
        rows = [(low, high - low) for low, high in itertools.pairwise(borders)]
        for symbol in reversed(symbols.tolist()):
            low, width = rows[symbol]
            if state >> 40 >= width:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            whole, part = divmod(state, width)
            state = (whole << _BITS) + low + part
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return np.array(words, "<u4").tobytes().rstrip(b"\0")


class _PythonDecoder:
    def __init__(self, stream: bytes) -> None:
        self._words = _words(stream).tolist()
        self._state = 0
        for _ in range(min(2, len(self._words))):
            self._state = self._state << 32 | self._words.pop()

    def take(self, count: int, frequencies: list[int]) -> np.ndarray:
        borders, words, state = _borders(frequencies), self._words, self._state
        find, out = bisect.bisect_right, np.empty(count, np.int32)
        for index in range(count):
            rest = state & 0xFFFFFF
            symbol = find(borders, rest) - 1
            low = borders[symbol]
            state = (state >> _BITS) * (borders[symbol + 1] - low) + rest - low
            if words and not state >> 32:
                state = state << 32 | words.pop()
            out[index] = symbol
        self._state = state
        return out

    def is_empty(self) -> bool:
        return not self._state and not self._words


def _borders(frequencies: list[int]) -> list[int]:
    room = (1 << _BITS) - len(frequencies)
    sums = itertools.accumulate(frequencies, initial=0)
    return [(below * room >> PRECISION) + i for i, below in enumerate(sums)]


def _words(stream: bytes) -> np.ndarray:
    return np.frombuffer(stream + bytes(-len(stream) % 4), "<u4")


PYTHON = Coder(_python_encode, _PythonDecoder)


def _constriction() -> Coder | None:
    try:
        import constriction
    except ImportError:
        return None
    stack, categorical = constriction.stream.stack.AnsCoder, constriction.stream.model.Categorical

    def model(frequencies: list[int]) -> object:
        # Multiples of 2^-20 that sum to 1: the library's float64 arithmetic on them is exact (20 + 24 bits < 53).
        return categorical(np.array(frequencies, np.float64) / TOTAL, perfect=False)

    def encode(runs: Iterable[Run]) -> bytes:
        coder = stack()
        for symbols, frequencies in reversed(list(runs)):
            if len(symbols):
                coder.encode_reverse(symbols, model(frequencies))
        words: np.ndarray = coder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0")

    class RustDecoder:
        def __init__(self, stream: bytes) -> None:
            self._coder = stack(_words(stream).astype(np.uint32))

        def take(self, count: int, frequencies: list[int]) -> np.ndarray:
            return self._coder.decode(model(frequencies), count) if count else np.zeros(0, np.int32)

        def is_empty(self) -> bool:
            return self._coder.is_empty()

    return Coder(encode, RustDecoder)


_RUST = _constriction()
HAS_CONSTRICTION = _RUST is not None


def coder_named(name: str) -> Coder:
    """Returns the coder ``"constriction"``, ``"python"``, or with ``"auto"`` the fastest there is.

    Raises:
        ConfigError: The library is asked for by name and is not installed.
    """
    if name == "python":
        return PYTHON
    if _RUST is None and name == "constriction":
        raise ConfigError("the coder 'constriction' is not installed: pip install 'constriction~=0.5.0'")
    return _RUST or PYTHON
