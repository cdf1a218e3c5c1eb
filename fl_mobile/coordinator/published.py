"""The open round as rows: what a round master tells the workers beside it, so that they answer as it would itself.

All that a worker needs is data: from the terms it knows the model, as clients do; from the assignment the codec and the
plan; `told_of` adds what clients are not told. The packets that bring a client from the version that it holds to this
one are made by the master alone, when the first worker asks for them (`prepare`): there may be fifty of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, insert, select, update

from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.coordinator.judging import judge_by, judge_masked
from fl_mobile.coordinator.records import OpenRound, Pace, Refusal, SumPace
from fl_mobile.coordinator.store import Transaction
from fl_mobile.coordinator.tables import parts, published
from fl_mobile.protocol.terms import Blob, assignment_from_json
from fl_mobile.seeds import hashes
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Folding
from fl_mobile.server.publish import version_counted
from fl_mobile.tensors import Spec
from fl_mobile.wire import Layout

_NAME = "round"
_THE_ROW = published.c.name == _NAME
_VERSION = select(published.c.version).where(_THE_ROW)
_VALUE = select(published.c.value).where(_THE_ROW)


@dataclass(frozen=True)
class Published:
    """What workers answer by.

    Attributes:
        terms: What clients fetch first.
        round: The one that is open.
        finished: Whether there will be no further round.
        history: The finished rounds, for the operator's page.
        pace: When clients come again that are not needed.
    """

    terms: Blob | None
    round: OpenRound | None
    finished: bool
    history: Sequence[Mapping[str, Any]]
    pace: Pace


def seeds_of(seed: int, round_num: int) -> Callable[[int], int]:
    """Returns device → what its training in a round, and its packet's rounding, are keyed by."""
    return lambda device: int(hashes(seed, round_num, "train", index=np.array([device]))[0])


def told_of(seed: int, folding: Folding) -> dict[str, Any]:
    """Returns `OpenRound.told`: of the experiment's seed, and of how packets are judged."""
    return {"seed": seed, "admission": asdict(folding.admission)}


def publish(tx: Transaction, what: Published) -> None:
    """Tells workers; what they were told before is over."""
    value = {
        "terms": None if what.terms is None else asdict(what.terms),
        "round": None if what.round is None or what.round.told is None else _round_to_json(what.round, what.round.told),
        "finished": what.finished,
        "history": list(what.history[-50:]),
        "pace": asdict(what.pace),
    }
    version = tx.db.execute(_VERSION).scalar()
    row = {"version": int(version or 0) + 1, "value": json.dumps(value)}
    known = version is not None
    tx.db.execute(update(published).where(_THE_ROW) if known else insert(published).values(name=_NAME), row)


def read_published(
    tx: Transaction, known: int, spec_of: Callable[[Blob], Spec], parts_of: Callable[[int], Callable[[int], Any]]
) -> tuple[int, Published] | None:
    """Returns what is told now, and its version; None if that is ``known``.

    Args:
        spec_of: Terms → tensors that travel.
        parts_of: Round → its `OpenRound.parts_for`.
    """
    version = int(tx.db.execute(_VERSION).scalar_one())
    if version == known:
        return None
    value = json.loads(tx.db.execute(_VALUE).scalar_one())
    terms, told = Blob(**value["terms"]) if value["terms"] else None, value["round"]
    round_ = None if terms is None or told is None else _round_from_json(told, spec_of(terms), parts_of(told["number"]))
    return version, Published(terms, round_, value["finished"], value["history"], Pace(**value["pace"]))


def begin(tx: Transaction, round_num: int) -> None:
    """Forgets what clients of other rounds fetched."""
    tx.db.execute(delete(parts).where(parts.c.round != round_num))


def parts_made(tx: Transaction, round_num: int, held: int) -> Mapping[str, Blob]:
    """Returns what a client of a round fetches that holds a version.

    Raises:
        Refusal: 503, the master has yet to make it; from now on it knows.
    """
    held = version_counted(held, round_num)
    the_row = (parts.c.round == round_num) & (parts.c.held == held)
    row = tx.db.execute(select(parts.c.value).where(the_row)).first()
    if row is None:
        tx.db.execute(insert(parts), {"round": round_num, "held": held, "value": None})
    if row is None or row.value is None:
        raise Refusal(503, "preparing", "the model is being packed for the version that this client holds: ask again")
    return {name: Blob(**blob) for name, blob in json.loads(row.value).items()}


def prepare(tx: Transaction, round_: OpenRound) -> None:
    """Makes what workers have asked for."""
    asked = select(parts.c.held).where(parts.c.round == round_.number, parts.c.value.is_(None))
    for held in list(tx.db.execute(asked).scalars()):
        made = {name: asdict(blob) for name, blob in round_.parts_for(held).items()}
        the_row = (parts.c.round == round_.number) & (parts.c.held == held)
        tx.db.execute(update(parts).where(the_row).values(value=json.dumps(made)))


_AS_THEY_ARE = ("number", "assignment", "ask", "most", "seat_seconds", "asynchronous", "most_bytes", "discreet")


def _round_to_json(round_: OpenRound, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: getattr(round_, name) for name in _AS_THEY_ARE},
        "invited": None if round_.invited is None else sorted(round_.invited),
        "programs": {name: asdict(blob) for name, blob in round_.programs.items()},
        "masks": None if round_.masks is None else asdict(round_.masks),
        "told": dict(told),
    }


def _round_from_json(value: Mapping[str, Any], spec: Spec, parts_for: Callable[[int], Any]) -> OpenRound:
    assignment, told = assignment_from_json(value["assignment"]), value["told"]
    folding = Folding(
        round_num=value["number"],
        layout=Layout(spec, assignment.upload),
        rule=AGGREGATORS["mean"],  # whatever the master's is: nothing is folded here
        admission=Admission(**told["admission"]),
        plan=assignment.plan,
    )
    return OpenRound(
        **{name: value[name] for name in _AS_THEY_ARE},
        parts_for=parts_for,
        seed_of=seeds_of(told["seed"], value["number"]),
        judge=judge_by(folding) if value["masks"] is None else judge_masked(folding),
        masks=None if value["masks"] is None else SumPace(**value["masks"]),
        invited=None if value["invited"] is None else frozenset(value["invited"]),
        programs={name: Blob(**blob) for name, blob in value["programs"].items()},
        told=told,
    )
