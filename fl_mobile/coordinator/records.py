"""The records of the coordinator: its limits, the round that is open, what it refuses and what it replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fl_mobile.errors import ConfigError, FlMobileError
from fl_mobile.protocol.terms import Blob
from fl_mobile.records import Receipt
from fl_mobile.tensors import Spec, fp32_bytes

CLOCK_TOLERANCE_MS = 120_000
"""How far a device's clock may be from ours; the refusal tells it the time, and it tries again."""

NO_ROOM = 507
"""Status of what the disk did not take; nothing of it was done."""


@dataclass(frozen=True)
class Limits:
    """What is refused before it takes memory, time or a place.

    Attributes:
        json_bytes: Longest body of a message.
        header_bytes: Longest request line and headers together.
        header_seconds: A connection that has sent no whole request after this is closed.
        grace_seconds: A body may take this long whatever its rate.
        least_bytes_per_second: After that it must have come at this rate on average.
        body_seconds: No body takes longer.
        answer_seconds: No request takes longer in all, however slowly its answer is read.
        uploads_at_once: Bodies of packets that are received at one time.
        attempts: Times a client may send another packet in one round, after one was refused.
    """

    json_bytes: int = 16 * 1024
    header_bytes: int = 16 * 1024
    header_seconds: float = 10.0
    grace_seconds: float = 5.0
    least_bytes_per_second: float = 1024.0
    body_seconds: float = 120.0
    answer_seconds: float = 900.0
    uploads_at_once: int = 256
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"limits: {name} must be above 0, got {value}")


def most_packet_bytes(spec: Spec) -> int:
    """Returns how long an upload may be: float32 of every value, an eighth more, and 4 kB of headers and tables."""
    return fp32_bytes(spec) * 9 // 8 + 4096


@dataclass(frozen=True)
class Pace:
    """When clients that are not needed come again.

    Attributes:
        least_seconds: Start of the window.
        check_ins_per_second: The window is as long as it takes to hear of the whole population at this rate.
    """

    least_seconds: float = 60.0
    check_ins_per_second: float = 100.0

    def window(self, population: int) -> dict[str, float]:
        """Returns the window inside which a client draws a moment, uniformly.

        >>> Pace(60, 100).window(1_000_000)
        {'after_seconds': 60, 'before_seconds': 10060.0}
        """
        spread = max(self.least_seconds, population / self.check_ins_per_second)
        return {"after_seconds": self.least_seconds, "before_seconds": self.least_seconds + spread}


@dataclass(frozen=True)
class Full:
    """A round that had no seat left when it was looked at: for a moment, who has none need not be looked up.

    Attributes:
        until: Seconds since 1970.
        seated: Devices that have a seat; their check-ins are another matter.
        population: Devices enrolled.
    """

    until: float
    seated: frozenset[int]
    population: int


@dataclass(frozen=True)
class SumPace:
    """How long the steps of a masked round take.

    Attributes:
        step_seconds: Answers to a step other than the packet are waited for so long.
        poll_seconds: Clients ask again whether a step has begun after this.
    """

    step_seconds: float = 60.0
    poll_seconds: float = 3.0


@dataclass
class OpenRound:
    """The round that clients are asked for now; what of it must outlive the process is in the store.

    Attributes:
        number: Of the server's step, and the model version that is handed out.
        assignment: `protocol.terms.assignment_to_json`: the same for all clients.
        parts_for: Version a client holds → what it fetches to train: ``model``, ``prediction``, ``beside``.
        seed_of: Device → what its training and its packet's rounding are keyed by.
        judge: (packet, version its client was asked for) → its receipt; by `server.admission`.
        ask: Clients to ask: of this round, or under an asynchronous server at any one time.
        most: Packets that count; the step is made when they are here.
        seat_seconds: How long a client that was asked is waited for.
        asynchronous: Whether packets of earlier versions count.
        invited: Devices that may be asked; None asks whoever comes first.
        most_bytes: Longest packet.
        programs: Name → blob: what clients run.
        masks: Set where packets are added under masks; they are then in no step of their own, but in the sum or not.
        told: What workers beside the master must know as well, `published.told_of`; None where there can be none.
        discreet: Whether how many came is for the run's own log alone: under differential privacy it was not charged.
        full: Kept by `core`; only a hint.
    """

    number: int
    assignment: Mapping[str, Any]
    parts_for: Callable[[int], Mapping[str, Blob]]
    seed_of: Callable[[int], int]
    judge: Callable[[bytes, int], Receipt]
    ask: int
    most: int
    seat_seconds: float = 3600.0
    asynchronous: bool = False
    invited: frozenset[int] | None = None
    most_bytes: int = 1 << 20
    programs: Mapping[str, Blob] = field(default_factory=dict)
    masks: SumPace | None = None
    told: Mapping[str, Any] | None = None
    discreet: bool = False
    full: Full | None = None

    @property
    def token_seconds(self) -> float:
        """How long a token stands: as long as its client may be waited for in all."""
        return self.seat_seconds + (4 * self.masks.step_seconds if self.masks else 0.0)


@dataclass(frozen=True)
class Reply:
    """What a request is answered with.

    Attributes:
        data: Bytes that are sent in the place of ``body``.
    """

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None

    @property
    def reason(self) -> str:
        """The short word of a refusal; empty otherwise."""
        return str(self.body.get("reason", "")) if self.status >= 400 else ""


class Refusal(FlMobileError):
    """A request that is answered with a problem (RFC 9457); raised before anything was written."""

    def __init__(self, status: int, reason: str, detail: str, **more: Any) -> None:
        super().__init__(f"{reason}: {detail}")
        self.status, self.reason, self.detail, self.more = status, reason, detail, more

    @property
    def reply(self) -> Reply:
        """The problem as it travels."""
        body = {"type": f"urn:fl-mobile:{self.reason}", "title": self.reason, "status": self.status}
        return Reply(self.status, {**body, "reason": self.reason, "detail": self.detail, **self.more})
