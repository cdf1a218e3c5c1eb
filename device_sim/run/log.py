"""``rounds.jsonl`` and ``timeline.jsonl``: one JSON line a finished round, written here and read by everybody here.

A crash can tear the last line only; it is left out. Any other line that does not fit is an error that says where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from device_sim.run.checked import record_of
from device_sim.run.folder import RunFolder
from fl_mobile.errors import RunError
from fl_mobile.storage.files import append_line, write_atomic


@dataclass(frozen=True)
class Round:
    """One line of ``rounds.jsonl``.

    Attributes:
        round_num: Counted from 0.
        accuracy: Of the new global model on the held-out test set, 0 to 1: of other tasks than classification their
            score, at most 1; None if evaluation.interval left it out.
        loss: Mean loss there; None like accuracy.
        train_loss: Mean local loss as the devices reported it.
        cohort: Devices that were asked.
        accepted: Updates in the average.
        dropped: Reason → devices lost: ``offline``, ``lost`` on air, or why the server refused the packet.
        upload_bytes: Bytes all devices sent, lost transfers too; ``len`` of real packets.
        download_bytes: Bytes all devices received.
        uploads: Number of packets sent.
        downloads: Devices that received the model.
        ratio: fp32 bytes of the model / mean packet length; None if no device sent one.
        air_seconds: Slowest device's download plus upload time, simulated.
        wall_seconds: What simulating this round took here.
        sim_seconds: Virtual time at the end of the round, since the run began.
        skipped: Reason → devices that were not asked, or declined to send.
        saved_bytes: What those would have cost.
        joules: Energy all devices of the round spent, radio and computing.
        staleness: Mean number of versions the accepted updates were behind (asynchronous).
        weights_norm: L2 norm of the new global model's trainable weights: noise that stays in them makes them longer.
        device_accuracy: Quantiles of the accuracies on single devices, in rounds that [evaluation] names.
        malicious: Malicious devices that were ``asked``, and their packets that were ``accepted`` and ``refused``;
            empty where nobody attacks.
        backdoor: Share of stamped test examples that are taken for the attackers' class, 0 to 1; None where no
            backdoor is attempted, or evaluation.interval left it out.
        masks: Of masked sums: ``groups``, and bytes of keys, shares and lists ``up`` and ``down``, which are in
            ``upload_bytes`` and ``download_bytes`` too; empty without [masks].
        metrics: What else the task tells of the model there, by name (`fl_mobile.tasks.METRICS`), numbers in their
            own units.
        privacy: What the rounds up to this one have spent, by name; empty without [privacy]. See `run.privacy`.
    """

    round_num: int
    accuracy: float | None
    loss: float | None
    train_loss: float | None
    cohort: int
    accepted: int
    dropped: dict[str, int]
    upload_bytes: int
    download_bytes: int
    uploads: int
    downloads: int
    ratio: float | None
    air_seconds: float
    wall_seconds: float
    sim_seconds: float = 0.0
    skipped: dict[str, int] = field(default_factory=dict)
    saved_bytes: int = 0
    joules: float = 0.0
    staleness: float = 0.0
    weights_norm: float = 0.0
    device_accuracy: dict[str, float] = field(default_factory=dict)
    malicious: dict[str, int] = field(default_factory=dict)
    backdoor: float | None = None
    privacy: dict[str, float] = field(default_factory=dict)
    masks: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """What the held-out test set says of the global model after a round.

    Attributes:
        place: Index among the rounds that were looked at.
    """

    place: int
    round_num: int
    accuracy: float
    loss: float


def scores_of(rounds: Sequence[Round]) -> list[Score]:
    """Returns the rounds that were evaluated on the test set; the last one of a finished run is among them."""
    return [
        Score(place, r.round_num, r.accuracy, r.loss)
        for place, r in enumerate(rounds)
        if r.accuracy is not None and r.loss is not None
    ]


def read_rounds(folder: RunFolder) -> list[Round]:
    """Returns the finished rounds; none where the run has none yet.

    Raises:
        RunError: A line is damaged, of another version of fl-mobile, or out of order.
    """
    rounds = [record_of(Round, value, where) for value, where in read_lines(folder.rounds)]
    for place, done in enumerate(rounds):
        scored = done.accuracy is not None and done.loss is not None and done.accuracy <= 1
        if done.round_num != place or not (scored or (done.accuracy is None and done.loss is None)):
            raise RunError(
                f"{folder.rounds}, line {place + 1}: expected round {place} with an accuracy of at most 1 and a loss,"
                f" got round {done.round_num} with {done.accuracy} and {done.loss}; restore the file."
            )
    return rounds


def read_lines(path: Path) -> list[tuple[Any, str]]:
    """Returns the JSON value and place of every line; only the last may be torn by a crash, and is left out.

    Raises:
        RunError: Another line is no JSON.
    """
    if not path.exists():
        return []
    out: list[tuple[Any, str]] = []
    lines = path.read_bytes().split(b"\n")
    for place, line in enumerate(lines, 1):
        where = f"{path}, line {place}"
        try:
            out.append((json.loads(line, parse_constant=_refuse), where))
        except (ValueError, RecursionError) as error:
            if place < len(lines):
                raise RunError(f"{where}: not a line of JSON ({error}); restore the file.") from None
    return out


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def append_round(folder: RunFolder, done: Round) -> None:
    """Adds one finished round to ``rounds.jsonl``."""
    append_line(folder.rounds, json.dumps(asdict(done), allow_nan=False))


def append_timeline(folder: RunFolder, line: dict[str, Any]) -> None:
    """Adds one round's devices to ``timeline.jsonl``."""
    append_line(folder.timeline, json.dumps(line, allow_nan=False))


def rewind(folder: RunFolder, finished: int) -> list[Round]:
    """Drops rounds the checkpoint does not know of (written just before a crash) and returns the rest.

    Raises:
        RunError: Rounds are missing that the checkpoint counts as finished, or a line is damaged.
    """
    kept = read_rounds(folder)[:finished]
    if len(kept) < finished:
        raise RunError(
            f"{folder.rounds}: {finished} rounds are finished but only {len(kept)} are readable; restore it."
        )
    _write_lines(folder.rounds, [asdict(done) for done in kept])
    timeline = [line for line, where in read_lines(folder.timeline) if _number(line, where) < finished]
    _write_lines(folder.timeline, timeline)
    return kept


def _number(line: Any, where: str) -> int:
    number = line.get("round_num") if isinstance(line, dict) else None
    if type(number) is not int:
        raise RunError(f"{where}: expected a round's devices with their round_num; restore the file, or delete it.")
    return number


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    if path.exists():
        write_atomic(path, "".join(json.dumps(line) + os.linesep for line in lines).encode())
