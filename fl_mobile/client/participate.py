"""One visit of a client to a coordinator: asked or not, and if so all that follows, to the receipt.

```
an answer under way? ─▶ its receipt ─▶ keep
under masks, in a sum? ─▶ its next step, `in_sum`
check in ─▶ retry window ─▶ come back in it
        └▶ assignment ─▶ model, program ─▶ conditions? ─▶ train ─▶ answer ─▶ (on disk) ─▶ upload ─▶ receipt ─▶ keep
```
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fl_mobile.client import kept as disk
from fl_mobile.client.answer import Answer, answer, keep, terms_of
from fl_mobile.client.asked import Asked, Visit, come_again
from fl_mobile.client.in_sum import InSum, Left
from fl_mobile.client.kept import Kept, UnderWay
from fl_mobile.client.receive import receive
from fl_mobile.client.remote import Refused, Remote
from fl_mobile.client.state import pull_of
from fl_mobile.errors import ConfigError, DataError, DivergedError, WireError
from fl_mobile.protocol.forms import text, whole
from fl_mobile.protocol.signing import to_base64
from fl_mobile.protocol.statistics import Statistic, statistics_from_json
from fl_mobile.protocol.terms import Blob, Terms, blob, initial_of, receipt_from_json, terms_from_json
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import seed_for
from fl_mobile.tensors import Tensors
from fl_mobile.wire import Layout
from fl_mobile.wire.download import Download

NO_TERMS_SECONDS = 5.0
"""A coordinator that has no terms yet, and asks for nothing, is preparing them: it is asked again after this."""
FREE_DISK_BYTES = 64 << 20
"""A client with less than this beside what it downloads takes no part: its phone has other worries."""


class Trainer(Protocol):
    """Runs the program that the assignment names, on this client's examples."""

    def __call__(
        self,
        program: Mapping[str, bytes],
        weights: Tensors,
        plan: FitPlan,
        *,
        seed: int,
        start: Tensors | None,
        pull: Tensors | None,
    ) -> Update:
        """Returns the update relative to ``weights``.

        Args:
            start: Tensors that begin at values of the client's own.
            pull: Is added to every step's gradient.
        """
        ...


class Client:
    """A device's whole life with one coordinator.

    Args:
        folder: What it keeps; nobody else's.
        fit: Trains.
        fits: Whether conditions allow to go on: charging, idle, unmetered; empty text is yes, else why not.
        fetched: Blobs that several clients of one process share, by SHA-256.
        registry: Public keys of the devices that it shares masked sums with, this one's among them.
        sums: Returns the packet of sums of its examples that answers a question, before there are terms.
    """

    def __init__(
        self,
        remote: Remote,
        folder: Path,
        fit: Trainer,
        *,
        fits: Callable[[], str] = lambda: "",
        fetched: dict[str, bytes] | None = None,
        runtime: str = "",
        registry: frozenset[bytes] = frozenset(),
        sums: Callable[[Statistic], bytes] | None = None,
    ) -> None:
        self._remote, self._folder, self._fit, self._fits, self._runtime = remote, folder, fit, fits, runtime
        self._fetched = {} if fetched is None else fetched
        self._kept = disk.load(folder)
        self._terms: Terms | None = None
        self._registry, self._sums = registry, sums
        self._asked: tuple[Statistic, ...] = ()
        self._told = set[Statistic]()
        self._retry: Any = None
        self._sum: InSum | None = None

    def enrol(self) -> int:
        """Returns the device's index in the coordinator's run; a new run is begun as a client that holds nothing."""
        told = self._remote.get("/v1/run")
        run, terms = text(64)(told.get("run")), told.get("terms")
        try:
            self._asked = statistics_from_json(told.get("statistics", []))
        except ValueError as error:
            raise WireError("statistics", str(error)) from None
        self._terms, self._remote.run = None if terms is None else self._read(terms), run
        if self._kept.run != run or self._kept.device is None:
            self._remote.device = None
            self._told.clear()
            told = self._remote.signed("/v1/devices", {"public_key": to_base64(self._remote.key.public)})
            device = whole(0, 2**32 - 1)(told.get("device"))
            self._keep(Kept(run=run, device=device))
        self._remote.device = self._kept.device
        assert self._kept.device is not None
        return self._kept.device

    def _read(self, told: Any) -> Terms:
        body = self._blob(blob(told))
        terms = terms_from_json(body, self._blob(initial_of(body)))
        if terms.agreement.masks and self._remote.key.public not in self._registry:
            raise ConfigError(
                f"this run adds updates under masks, with devices of a registry: give --registry FILE with the public"
                f" keys of all, this one's among them: {to_base64(self._remote.key.public)}"
            )
        return terms

    def visit(self) -> Visit:
        """Checks in, and does what is asked.

        Raises:
            Refused, Unreachable: The coordinator does not want this client, or cannot be reached.
            WireError: What came from it is damaged or does not fit; nothing was trained with it.
            DataError: Its program does not take what this client holds; its place is given up.
        """
        if self._terms is None or self._remote.device is None:
            self.enrol()
        if self._terms is None:
            return self._send_sums()
        if self._kept.under_way is not None:
            return self._hand_in(self._kept.under_way)
        if self._sum is not None:
            return self._go_on(self._sum)
        told = self._remote.signed(
            f"/v1/devices/{self._remote.device}/check-ins",
            {"held": self._kept.held.version, "runtime": self._runtime, "conditions": {"ready": not self._fits()}},
        )
        if told.get("finished") is True:
            return Visit(finished=True)
        if "retry" in told:
            return come_again(told["retry"])
        return self._take_part(told["assignment"])

    def _send_sums(self) -> Visit:
        """Answers what is asked before there are terms; whoever is too late, or has answered, waits for them."""
        for one in [one for one in self._asked if one not in self._told]:
            if self._sums is None:
                raise DataError(f"this run asks for sums of '{one.about}' first, which this client does not make")
            packet = self._sums(one)
            path = f"/v1/devices/{self._remote.device}/sums/{one.about}"
            try:
                told: Mapping[str, Any] = self._remote.signed(path, {"sums": to_base64(packet)})
            except Refused as refused:  # of a conflict, an earlier life of this client was counted
                if refused.reason not in ("late", "conflict"):
                    raise
                told = refused.problem
            self._told.add(one)
            self._retry = told.get("retry")
        return come_again(self._retry) if self._retry else Visit(wait_seconds=NO_TERMS_SECONDS)

    def _take_part(self, told: Mapping[str, Any]) -> Visit:
        assert self._terms is not None
        agreement, asked = self._terms.agreement, Asked.read(told)
        needed = sum(part.bytes for part in asked.parts.values())
        if why := (self._fits() or _no_room(self._folder, needed) or self._spent()):
            return self._give_up(asked, why)
        if agreement.masks:
            return self._join_sum(asked)
        made = self._answer(asked)
        if isinstance(made, Left):
            return self._give_up(asked, made.reason)
        under_way = UnderWay(dict(told), 0, made)
        self._keep(replace(self._kept, under_way=under_way, answers=self._kept.answers + 1))
        return self._hand_in(under_way)

    def _answer(self, asked: Asked) -> Answer | Left:
        """Fetches the model, trains, and returns what is to leave this client, or why nothing is."""
        assert self._terms is not None
        terms, agreement = self._terms, self._terms.agreement
        packets = {name: self._remote.fetch(part) for name, part in asked.parts.items()}
        download = Download(packets["model"], packets.get("prediction", b""), packets.get("beside", b""))
        version = asked.assignment.round_num
        decoded, held = receive(agreement, download, version=version, held=self._kept.held)
        self._keep(replace(self._kept, held=held))
        private = {path: terms.whole[path] for path in terms.whole if path in terms.private}
        start = (self._kept.state.private or private) if private else None
        pull = pull_of(agreement, decoded, self._kept.state)
        program = {name: self._blob(part) for name, part in asked.programs.items()}
        weights = {path: decoded.weights.get(path, first) for path, first in terms.whole.items()}
        if why := self._fits():
            return Left(why)
        try:
            update = self._fit(program, weights, asked.assignment.plan, seed=asked.seed, start=start, pull=pull)
            return answer(
                terms_of(agreement, asked.assignment, decoded, private),
                update,
                seed_for(asked.seed, "codec"),
                residual=self._kept.state.residual,
                secret=self._remote.key.seed,
                run=self._kept.run,
            )
        except DivergedError:
            return Left("diverged")
        except DataError:  # it will not do in any round: nobody need wait for it
            self._give_up(asked, "data")
            raise

    def _join_sum(self, asked: Asked) -> Visit:
        """Begins its part in a masked round, unless an earlier life of it has been in it: keys are used once."""
        assert self._terms is not None
        agreement, number = self._terms.agreement, asked.assignment.round_num
        assert agreement.masks is not None
        if number <= self._kept.summed_in:
            return self._give_up(asked, "left-out")

        def train() -> Answer | Left:
            made = self._answer(asked)
            if not isinstance(made, Left):
                self._keep(replace(self._kept, answers=self._kept.answers + 1))
            return made

        self._sum = InSum(
            remote=self._remote,
            asked=asked,
            layout=Layout(agreement.spec, asked.assignment.upload),
            trusted=self._registry,
            plan=agreement.masks,
            noise=agreement.share_noise,
            begin=lambda: self._keep(replace(self._kept, summed_in=number)),
            train=train,
        )
        return self._go_on(self._sum)

    def _go_on(self, part: InSum) -> Visit:
        """Takes its next step in a masked round; what it does not trust, it leaves."""
        assert self._terms is not None
        try:
            came = part.go_on()
        except WireError as error:
            came = Left(error.reason)
        if isinstance(came, float):
            return Visit(wait_seconds=came, reason="in-a-sum")
        self._sum = None
        if isinstance(came, Left):
            return self._give_up(part.asked, came.reason)
        before, assignment = self._kept.state, part.asked.assignment
        if part.made is not None:
            state = keep(
                agreement=self._terms.agreement, assignment=assignment, before=before, made=part.made, receipt=came
            )
            self._keep(replace(self._kept, state=state))
        return Visit(assignment.round_num, came, reason=came.reason)

    def _hand_in(self, under_way: UnderWay) -> Visit:
        """Uploads an answer, or finds out what became of it; what the client keeps follows from the receipt."""
        assert self._terms is not None
        asked, made = Asked.read(under_way.assignment), under_way.answer
        status, told = self._remote.send(asked.path(under_way.attempt), made.packet, asked.token)
        receipt, wait = None, 0.0
        if "receipt" in told:
            receipt = receipt_from_json(told["receipt"])
        elif status in (401, 404, 409, 410):  # too late, one way or another: as if it had not been asked
            wait = come_again(told["retry"]).wait_seconds if "retry" in told else 0.0
        else:
            raise Refused(status, told, "upload")
        before = self._kept.state
        state = keep(
            agreement=self._terms.agreement, assignment=asked.assignment, before=before, made=made, receipt=receipt
        )
        self._keep(replace(self._kept, state=state, under_way=None))
        if receipt is not None and not receipt.accepted:  # the same data would give the same packet again
            self._remote.ask("DELETE", asked.path(under_way.attempt), asked.token)
        reason = receipt.reason if receipt else str(told.get("reason", ""))
        return Visit(asked.assignment.round_num, receipt, wait, reason=reason)

    def _give_up(self, asked: Asked, why: str) -> Visit:
        self._remote.ask("DELETE", asked.path(0), asked.token)
        return Visit(asked.assignment.round_num, None, reason=why)

    def _spent(self) -> str:
        """Returns why no further answer may leave this client, by its own count and not by the server's."""
        agreement = self._terms.agreement if self._terms else None
        noise = agreement and (agreement.local_noise or agreement.share_noise)
        return "privacy-spent" if noise and self._kept.answers >= noise.answers else ""

    def _blob(self, wanted: Blob) -> bytes:
        if wanted.sha256 not in self._fetched:
            self._fetched[wanted.sha256] = self._remote.fetch(wanted)
        return self._fetched[wanted.sha256]

    def _keep(self, kept: Kept) -> None:
        disk.save(self._folder, kept)
        self._kept = kept


def _no_room(folder: Path, needed: int) -> str:
    free = shutil.disk_usage(folder).free
    return "" if free > needed + FREE_DISK_BYTES else "no-room"
