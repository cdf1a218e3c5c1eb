"""The server publishes a version of the model: what clients are to do, and the packets that get it to any of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.client import feedback
from fl_mobile.codecs import contracting
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.codecs.summed import in_step, summed
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.records import Assignment, FitPlan, ServerState
from fl_mobile.seeds import rng_for
from fl_mobile.server.statistics import statistics_of
from fl_mobile.server.step import ServerRules
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import PREDICTION, Decoded, Download, decode, decoded_as, forwarding_of
from fl_mobile.wire.forward import Sums
from fl_mobile.wire.lattice import Lattice

VERSIONS_KEPT = 50
"""A client that holds an older version than this gets the difference to version 0, which ships with the app."""

SUMS_KEPT = 1000
"""Rounds whose sums are kept to be forwarded; older versions get a lattice difference."""


def version_counted(held: int, now: int) -> int:
    """Returns which version a client's download is made from: what nobody can hold counts as the app's model.

    >>> version_counted(3, now=4), version_counted(7, now=4), version_counted(3, now=99)
    (3, 0, 0)
    """
    return held if now - VERSIONS_KEPT <= held <= now else 0


class Points(Protocol):
    """Where the lattice points of published versions, and their statistics, are kept; `storage.shelf.Shelf` is one."""

    def put(self, what: str, round_num: int, tensors: Tensors) -> None: ...
    def get_exactly(self, what: str, round_num: int) -> Tensors | None: ...
    def forget(self, what: str, before: int, *, keep: int) -> None: ...


def assign(
    agreement: Agreement, rules: ServerRules, state: ServerState, plan: FitPlan
) -> tuple[ServerState, Assignment]:
    """Returns what clients of the next round are asked, and the state that remembers it.

    Args:
        plan: Local training that the experiment asks for in this round, before the algorithm has its say.
    """
    share = agreement.algorithm.step_share
    upload = contracting(agreement.upload, share) if share else agreement.upload
    if rules.rate_control is not None and isinstance(upload, Ecsq):
        published = upload.step if state.upload_step is None else state.upload_step
        state, upload = replace(state, upload_step=published), upload.with_step(published)
    if agreement.share_noise and not agreement.masks:
        raise ConfigError("a share of the noise hides nothing by itself: it needs masks")
    if agreement.masks:
        _check_masked(agreement)
        if rules.moves_step and isinstance(upload, Sketch):
            state = replace(state, upload_step=state.upload_step or upload.step)
        upload = in_step(upload, state.round_num, state.upload_step if rules.moves_step else None)
    plan, admission, clip_norm = agreement.algorithm.plan(plan), rules.admission, rules.admission.clip_norm
    if rules.privacy or agreement.local_noise or agreement.share_noise:
        _check_private(agreement)
    if rules.privacy:
        state = state if state.privacy else replace(state, privacy=rules.privacy.start())
        clip_norm = state.privacy.clip_norm if state.privacy else clip_norm
    return state, Assignment(
        round_num=state.round_num, plan=plan, upload=upload, clip_norm=clip_norm, max_examples=admission.max_examples
    )


def _check_private(agreement: Agreement) -> None:
    """Raises `ConfigError` for what would leave clients beside the clipped sum."""
    statistics = [path for path, tensor in agreement.spec.items() if not tensor.trainable]
    if statistics:
        raise ConfigError(f"under privacy no statistics of clients' examples travel, and '{statistics[0]}' is one")
    if agreement.algorithm.per_step or agreement.algorithm.variate:
        raise ConfigError(f"under privacy one sum is released a round, and '{agreement.algorithm.name}' needs another")
    if agreement.memory != "none" or not agreement.bare_packets:
        raise ConfigError("under privacy packets hold one round's update and nothing else: no memory, bare packets")


def _check_masked(agreement: Agreement) -> None:
    """Raises `ConfigError` for what cannot be added under masks, or needs single updates."""
    if summed(agreement.upload) is None:
        raise ConfigError(f"under masks only fields of a fixed width add up, and '{agreement.upload.name}' sends none")
    if as_they_are := [path for path, tensor in agreement.spec.items() if not tensor.trainable]:
        raise ConfigError(f"under masks only coded tensors travel, and '{as_they_are[0]}' would be sent as it is")
    if agreement.algorithm.per_step or agreement.algorithm.variate or agreement.memory != "none":
        raise ConfigError("under masks no single update is known: no control variates, second sums or memory")
    noise, upload = agreement.share_noise, agreement.upload
    if noise and not (isinstance(upload, Sketch) and noise.fields(upload) == upload and noise.numbers == upload.k):
        raise ConfigError(f"step and width of '{upload.name}' are not those of the noise that clients add shares of")
    if not agreement.bare_packets:
        raise ConfigError("under masks packets hold the masked payload and nothing else: bare packets")


@dataclass
class Publication:
    """One version of the model on its way to clients.

    Attributes:
        decoded: What it decodes to on every client, whatever each held before; training starts there.
    """

    decoded: Decoded
    _agreement: Agreement
    _state: ServerState
    _points: Points
    _whole: Download
    _lattice: Lattice | None = None
    _wanted: Tensors | None = None
    _downloads: dict[int, Download] = field(default_factory=dict)

    def download_for(self, held_version: int) -> Download:
        """Returns the packets for a client that holds ``held_version``; 0 is the model in the app.

        A difference is decoded again before it is handed out: a client lands on this version or nowhere.

        Raises:
            RunError: It did not; a fault of ours.
        """
        if self._lattice is None:
            return self._whole
        if held_version not in self._downloads:
            self._downloads[held_version] = self._difference(held_version, self._lattice)
        return self._downloads[held_version]

    def _difference(self, held_version: int, lattice: Lattice) -> Download:
        now = self._state.round_num
        held = self._points.get_exactly("point", held_version) if held_version else lattice.start
        held = self._rewound(lattice, held_version) if held is None else held
        base = held_version if held is not None else 0  # forgotten here: from the app's model, and the packet says so
        start = lattice.start if held is None else held
        wanted = start if base == now and base else self._wanted
        assert wanted is not None
        packet = self._shortest(lattice, wanted, start, base, held_version)
        download = replace(self._whole, model=packet)
        reached = decode(self._agreement, download, version=now, held_version=held_version, held=held)
        if any((reached.weights[p] != value).any() for p, value in self.decoded.weights.items()):
            raise RunError(f"round {now}: a delta from version {held_version} did not reach the broadcast model")
        return download

    def _rewound(self, lattice: Lattice, held_version: int) -> Tensors | None:
        """Returns a point that was forgotten, if the sums of all rounds since lead back to it."""
        forwarding, history = forwarding_of(self._agreement, lattice), self._history(held_version)
        if forwarding is None or history is None or self._wanted is None:
            return None
        return forwarding.rewound(self._wanted, history, held_version=held_version)

    def _shortest(self, lattice: Lattice, wanted: Tensors, start: Tensors, base: int, held_version: int) -> bytes:
        """Returns the lattice difference or the forwarded sums; the former is not even made where it cannot win."""
        now, weights = self._state.round_num, self._state.weights
        forwarding = forwarding_of(self._agreement, lattice)
        history = self._history(held_version) if forwarding and base == held_version else None
        if forwarding is None or history is None:
            return lattice.pack(weights, wanted, start, version=now, held_version=base)
        sums = forwarding.pack(weights, history, version=now, held_version=held_version)
        if 16 * len(sums) < sum(value.size for value in wanted.values()):  # half a bit a value
            return sums
        return min(lattice.pack(weights, wanted, start, version=now, held_version=base), sums, key=len)

    def _history(self, held_version: int) -> list[Sums] | None:
        """Returns what rounds since a version did, None if one of them is not known as sums."""
        found = [self._points.get_exactly("sums", t + 1) for t in range(held_version, self._state.round_num)]
        return None if None in found else [Sums(int(s["gain"][0]), s["numbers"]) for s in found if s is not None]


def publish(agreement: Agreement, state: ServerState, points: Points, *, max_staleness: int = 0) -> Publication:
    """Returns the state's model, ready to be sent.

    Every client that has decoded it finds the masks of the round by itself, the server the same ones: they follow from
    the decoded weights, of which those that were zero before are the smallest.

    Args:
        points: Receives this version's lattice point, and forgets those of versions long gone.
        max_staleness: Versions behind that an update may be; `moved_since` then needs their statistics.

    Raises:
        DivergedError: A weight is too far from its first value for the lattice.
    """
    published = _published(agreement, state, points)
    statistics = statistics_of(published.decoded.weights, agreement.spec) if max_staleness else {}
    if statistics:
        points.put("statistics", state.round_num, statistics)
        points.forget("statistics", before=state.round_num, keep=max_staleness + 1)
    return published


def moved_since(points: Points, now: int, max_staleness: int) -> dict[int, Tensors]:
    """Returns versions behind → the statistics of that version less those of ``now``, as clients decoded both.

    Args:
        points: Where `publish` put them; where it put none, there are none.
        max_staleness: Versions behind that an update may be.
    """
    current = points.get_exactly("statistics", now) if max_staleness else None
    versions = range(1, min(max_staleness, now) + 1) if current else ()
    kept = {late: points.get_exactly("statistics", now - late) for late in versions}
    return {late: {p: v - current[p] for p, v in then.items()} for late, then in kept.items() if current and then}


def _published(agreement: Agreement, state: ServerState, points: Points) -> Publication:
    now, lattice = state.round_num, agreement.lattice(state.round_num)
    extra = Download(b"", _prediction(agreement, state), _beside(agreement, state))
    if lattice is None:
        header, rng = wire.Header(wire.MODEL, now, now), rng_for(agreement.seed, now, "broadcast")
        packet = wire.pack(header, state.weights, agreement.spec, agreement.download, rng)
        whole = replace(extra, model=packet)
        return Publication(
            decoded=decode(agreement, whole, version=now),
            _agreement=agreement,
            _state=state,
            _points=points,
            _whole=whole,
        )
    wanted = lattice.point(state.weights)
    weights = lattice.weights(wanted, state.weights)
    decoded = decoded_as(agreement, extra, version=now, weights=weights, point=wanted)
    assert decoded.point is not None
    _put_sums(agreement, points, lattice, now, decoded.point)
    points.put("point", now, decoded.point)
    points.forget("point", before=now, keep=VERSIONS_KEPT)
    return Publication(
        decoded=decoded,
        _agreement=agreement,
        _state=state,
        _points=points,
        _whole=extra,
        _lattice=lattice,
        _wanted=wanted,
    )


def _put_sums(agreement: Agreement, points: Points, lattice: Lattice, now: int, point: Tensors) -> None:
    """Stores what led to this version from the one before, if sums say it."""
    forwarding = forwarding_of(agreement, lattice)
    if forwarding is None or not now:
        return
    before = points.get_exactly("point", now - 1) if now > 1 else lattice.start
    sums = None if before is None else forwarding.between(before, point, now - 1)
    if sums is not None:
        points.put("sums", now, {"gain": np.array([sums.gain]), "numbers": sums.numbers})
    points.forget("sums", before=now, keep=SUMS_KEPT)


def _prediction(agreement: Agreement, state: ServerState) -> bytes:
    """Returns the packet of the last mean update, under CAFe; what it decodes to is what every client predicts."""
    if agreement.memory != "cafe" or state.mean is None:
        return b""
    header = wire.Header(wire.MODEL_DELTA, state.round_num, state.round_num)
    predicted = feedback.predictable(state.mean, agreement.spec)
    return wire.pack(header, predicted, agreement.spec, PREDICTION, rng_for(0, "unused"))


def _beside(agreement: Agreement, state: ServerState) -> bytes:
    """Returns the packet of the slot that the algorithm sends beside the model."""
    if not agreement.algorithm.sends:
        return b""
    header = wire.Header(wire.MODEL, state.round_num, state.round_num)
    slot, rng = state.slots[agreement.algorithm.sends], rng_for(agreement.seed, state.round_num, "beside-the-model")
    return wire.pack(header, slot, agreement.beside_spec, agreement.download, rng)
