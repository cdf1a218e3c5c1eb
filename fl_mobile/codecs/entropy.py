"""Lossless packing of the finished payload with zlib's deflate (RFC 1950)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from fl_mobile.errors import ConfigError, WireError


@dataclass(frozen=True)
class Deflate:
    """zlib at the given level; the reader stops at the size the spec allows, so a bomb cannot grow."""

    level: int = 6
    kind: Literal["pack"] = "pack"

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 9:
            raise ConfigError(f"deflate's level must be 1 (fast) to 9 (small), got {self.level}")

    @property
    def name(self) -> str:
        """``deflate``; any level decodes any other, so only a level that is not the default is named."""
        return "deflate" if self.level == 6 else f"deflate:{self.level}"

    def encode(self, data: bytes) -> bytes:
        """Returns a zlib stream."""
        return zlib.compress(data, self.level)

    def max_bytes(self, count: int) -> int:
        """Bytes of the stream at most: stored blocks cost 5 bytes per 16 kB, head and checksum 6."""
        return count + 5 * (count // 16_000 + 2) + 6

    def decode(self, data: memoryview, limit: int) -> bytes:
        """Returns at most ``limit`` bytes."""
        inflater = zlib.decompressobj()
        try:
            out = inflater.decompress(data, limit + 1)
        except zlib.error as error:
            raise WireError("inflate", f"not a zlib stream: {error}") from error
        if len(out) > limit:
            raise WireError("size", f"the payload inflates past the {limit} bytes its spec allows")
        if not inflater.eof or inflater.unused_data:
            raise WireError("inflate", "the zlib stream is cut off or followed by other bytes")
        return out
