"""Uploads that come in parts: what has arrived of each is on disk, so that the next part goes on where it stopped."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fl_mobile.coordinator.core import Place
from fl_mobile.coordinator.records import Refusal

_RANGE = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15})")
SMALL_BYTES = 1 << 18
"""What arrives whole and is no longer than this is not written before it is a packet."""


@dataclass(frozen=True)
class Range:
    """Which bytes of a packet a request carries; ``first > last`` carries none, and asks what is here.

    Attributes:
        whole: Length of the packet.
    """

    first: int
    last: int
    whole: int

    @property
    def carried(self) -> int:
        """Bytes in the request."""
        return self.last - self.first + 1


def range_of(header: str | None, declared: int, most: int) -> Range:
    """Returns what Content-Range says, or that the body is the whole packet.

    Raises:
        Refusal: It is malformed, or not as long as the body.

    >>> range_of("bytes 5-9/20", 5, 100)
    Range(first=5, last=9, whole=20)
    """
    if header is None:
        return Range(0, declared - 1, declared)
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise Refusal(400, "range", "expected Content-Range: bytes FIRST-LAST/LENGTH, or bytes */LENGTH")
    whole = int(found[3])
    if whole > most:
        raise Refusal(413, "too-long", f"a packet of {whole} bytes; here at most {most} are read", most_bytes=most)
    first, last = (0, -1) if found[1] is None else (int(found[1]), int(found[2]))
    if (found[1] is not None and first > last) or last >= whole or last - first + 1 != declared:
        raise Refusal(400, "range", f"bytes {first} to {last} of {whole} are not the {declared} bytes of the body")
    return Range(first, last, whole)


@dataclass(frozen=True)
class Parts:
    """The folder of uploads that are not whole yet; what a loss of power takes of them is sent again."""

    folder: Path

    def path(self, place: Place) -> Path:
        """Returns where the bytes of an upload are put together."""
        return self.folder / f"{place.round_num}-{place.device}-{place.attempt}.part"

    def received(self, place: Place) -> int:
        """Returns how many bytes of an upload are here, from its beginning."""
        try:
            return self.path(place).stat().st_size
        except FileNotFoundError:
            return 0

    def write(self, place: Place, at: int, data: bytes) -> None:
        """Puts ``data`` at byte ``at``; nothing may be missing before it.

        Raises:
            Refusal: There would be a gap.
        """
        here = self.received(place)
        if at > here:
            raise Refusal(409, "gap", f"the part begins at byte {at}, but only {here} are here", received=here)
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path(place), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(fd, view, at)
                at, view = at + written, view[written:]
        finally:
            os.close(fd)

    def take(self, place: Place) -> bytes:
        """Returns what is here."""
        path = self.path(place)
        return path.read_bytes() if path.exists() else b""

    def drop(self, place: Place) -> None:
        """Forgets an upload."""
        self.path(place).unlink(missing_ok=True)

    def clear(self, *, but: int | None = None) -> None:
        """Forgets all uploads, but those of one round."""
        for path in self.folder.glob("*.part"):
            if but is None or not path.name.startswith(f"{but}-"):
                path.unlink(missing_ok=True)
