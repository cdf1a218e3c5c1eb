"""Received bytes, read through one checked gate."""

from __future__ import annotations

import numpy as np

from fl_mobile.errors import WireError


class Reader:
    """A cursor over received bytes: the one checked gate through which every decoder reads.

    Counts always come from the spec or from a bounded header field; reading past the end is a `WireError`.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not been read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        """Returns the next ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise WireError("truncated", f"need {count} bytes at offset {self._at}, {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def peek(self, count: int) -> memoryview:
        """Returns the next ``count`` bytes without moving on."""
        view = self.take(count)
        self._at -= count
        return view

    def array(self, dtype: str, count: int) -> np.ndarray:
        """Returns the next ``count`` items of ``dtype`` (little endian, e.g. ``"<f4"``), not copied."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)

    def finite(self, dtype: str, count: int) -> np.ndarray:
        """Returns ``float32[count]`` read as ``dtype``, a view where that is float32; NaN or Inf is a `WireError`."""
        values = self.array(dtype, count).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise WireError("value", f"NaN or Inf among {count} {dtype} values")
        return values

    def varint(self, limit: int) -> int:
        """Returns an unsigned LEB128 number of at most ``limit``."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit:
                    raise WireError("value", f"number {value} is above its limit {limit}")
                return value
        raise WireError("value", "number is longer than 5 bytes")

    def end(self) -> None:
        """Raises `WireError` if bytes are left over."""
        if self.left:
            raise WireError("trailing", f"{self.left} bytes after the last tensor")


def varint(value: int) -> bytes:
    """Returns ``value`` as unsigned LEB128: seven bits a byte, low first, the high bit says more follow.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
