"""What a check-in is answered with, as a client reads it, and what becomes of the visit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_mobile.errors import WireError
from fl_mobile.protocol.forms import number, read, text, whole
from fl_mobile.protocol.terms import Blob, assignment_from_json, blob
from fl_mobile.records import Assignment, Receipt


@dataclass(frozen=True)
class Visit:
    """What became of a visit.

    Attributes:
        round_num: The round that the client took part in; None if it was not asked.
        receipt: None if it was not asked, or gave up.
        wait_seconds: When it is to come again.
        finished: Whether the coordinator needs nobody any more.
        reason: Why it was not asked, or gave up.
    """

    round_num: int | None = None
    receipt: Receipt | None = None
    wait_seconds: float = 0.0
    finished: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Asked:
    """An assignment as this client reads it."""

    assignment: Assignment
    device: int
    seed: int
    token: str
    parts: Mapping[str, Blob]
    programs: Mapping[str, Blob]

    @classmethod
    def read(cls, told: Any) -> Asked:
        """Returns what was told; raises `WireError`."""
        form = {
            "round": whole(0, 2**32 - 1),
            "plan": _as_it_is,
            "upload": text(),
            "clip_norm": number,
            "max_examples": whole(0, 2**63),
            "run": text(64),
            "device": whole(0, 2**32 - 1),
            "seed": _seed,
            "token": text(),
            "seconds": number,
            "most_bytes": whole(0, 2**40),
            "parts": _blobs,
            "programs": _blobs,
        }
        got = read(told, form)
        common = {name: got[name] for name in ("round", "plan", "upload", "clip_norm", "max_examples")}
        if "model" not in got["parts"]:
            raise WireError("json", "the assignment names no model")
        assignment = assignment_from_json(common)
        return cls(assignment, got["device"], got["seed"], got["token"], got["parts"], got["programs"])

    @property
    def seat(self) -> str:
        """Path of this client in this round."""
        return f"/v1/rounds/{self.assignment.round_num}/devices/{self.device}"

    def path(self, attempt: int) -> str:
        """Returns where an answer goes."""
        return f"{self.seat}/attempts/{attempt}"


def come_again(value: Any) -> Visit:
    """Returns a moment drawn from a retry window; raises `WireError`."""
    form = {"after_seconds": number, "before_seconds": number, "reason": text()}
    got = read(value, form, optional={"reason": ""})
    first, last = got["after_seconds"], got["before_seconds"]
    return Visit(wait_seconds=max(0.0, first + random.random() * (last - first)), reason=got["reason"])


def _as_it_is(value: Any) -> Any:
    return value


def _seed(value: Any) -> int:
    if not isinstance(value, str) or not value.isdigit() or len(value) > 20:
        raise ValueError("expected a number of 64 bits as text")
    return int(value)


def _blobs(value: Any) -> dict[str, Blob]:
    if not isinstance(value, dict) or len(value) > 16:
        raise ValueError("expected names and what they stand for")
    return {text(64)(name): blob(part) for name, part in value.items()}
