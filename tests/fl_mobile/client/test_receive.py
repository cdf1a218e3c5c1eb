"""What travels down: any client lands on the published version or says why not; what the server forgot it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.receive import IN_THE_APP, Held, receive
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import DivergedError, WireError
from fl_mobile.server.publish import VERSIONS_KEPT, Publication, publish
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Download
from fl_mobile.wire.pruning_mask import PruningPlan
from tests.fl_mobile.samples import SPEC, laplace

PRUNED = PruningPlan(0.5, end_round=2, smallest_kernel=1)
KINDS = {"whole": {}, "delta": {"delta_step": 0.1}, "pruned": {"delta_step": 0.1, "pruning": PRUNED}}


def agreement(kind: str) -> Agreement:
    algorithm, codec = ALGORITHMS["scaffold"].build(), parse_codec("float16")
    return Agreement(SPEC, laplace(key=0), algorithm, codec, codec, memory="cafe", **KINDS[kind])


def published(terms: Agreement, points: Shelf, version: int) -> Publication:
    """One version after another, each a step further from the app's model."""
    first = terms.algorithm.init(terms.initial, SPEC)
    weights = {p: v + np.float32(0.01 * version) * laplace(key=version)[p] for p, v in terms.initial.items()}
    slots = {"c": {p: v * np.float32(version) for p, v in first.slots["c"].items()}}
    mean = {p: v * np.float32(0.1) for p, v in laplace(key=7).items()} if version else None
    state = first.__class__(version, weights, SPEC, slots, mean)
    return publish(terms, state, points)


def same(a: Tensors, b: Tensors) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[p], b[p]) for p in a)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_lands_on_every_version_whatever_it_held(kind: str, tmp_path: Path) -> None:
    terms, points = agreement(kind), Shelf(tmp_path)
    held = dict.fromkeys((1, 2, 3), IN_THE_APP)
    for version in range(7):
        made = published(terms, points, version)
        for every, before in held.items():
            if version % every == 0:
                download = made.download_for(before.version)
                decoded, held[every] = receive(terms, download, version=version, held=before)
                assert same(decoded.weights, made.decoded.weights)
                assert same(decoded.beside, made.decoded.beside)
                assert (decoded.prediction is None) == (version == 0)
                assert held[every].version == version
        again, _ = receive(terms, made.download_for(version), version=version, held=held[1])
        assert same(again.weights, made.decoded.weights)


def test_a_version_the_server_has_forgotten_is_named_by_what_the_delta_really_starts_from(tmp_path: Path) -> None:
    terms, points = agreement("delta"), Shelf(tmp_path)
    _, old = receive(terms, published(terms, points, 1).download_for(0), version=1, held=IN_THE_APP)
    for version in range(2, VERSIONS_KEPT + 4):
        made = published(terms, points, version)
    assert points.get_exactly("point", 1) is None
    download, lattice = made.download_for(1), terms.lattice(VERSIONS_KEPT + 3)
    assert lattice is not None
    assert lattice.versions(download.model) == (VERSIONS_KEPT + 3, 0)
    decoded, _ = receive(terms, download, version=VERSIONS_KEPT + 3, held=old)
    assert same(decoded.weights, made.decoded.weights)


@pytest.mark.parametrize("kind", ["delta", "pruned"])
def test_a_delta_from_a_version_the_client_does_not_hold_is_refused(kind: str, tmp_path: Path) -> None:
    terms, points = agreement(kind), Shelf(tmp_path)
    for version in range(4):
        made = published(terms, points, version)
    download = made.download_for(2)
    for held in (IN_THE_APP, Held(1, points.get_exactly("point", 1))):
        with pytest.raises(WireError, match=r"base: .* starts from version 2"):
            receive(terms, download, version=3, held=held)
    with pytest.raises(WireError, match="round: expected model version 4"):
        receive(terms, download, version=4, held=Held(2, points.get_exactly("point", 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_downloads_raise_one_kind_of_error_and_change_nothing(kind: str, tmp_path: Path) -> None:
    terms, points = agreement(kind), Shelf(tmp_path)
    made = [published(terms, points, version) for version in range(3)][-1]
    good, rng, refused = made.download_for(0), np.random.default_rng(0), 0
    for _ in range(300):
        parts = {"model": good.model, "prediction": good.prediction, "beside": good.beside}
        name = str(rng.choice(list(parts)))
        data = bytearray(parts[name])
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        parts[name] = bytes(data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.3 else data)
        if not parts[name]:
            continue
        with pytest.raises(WireError):
            receive(terms, Download(**parts), version=2, held=IN_THE_APP)
        refused += 1
    assert refused > 250
    swapped = Download(good.model, good.beside, good.prediction)
    with pytest.raises(WireError):
        receive(terms, swapped, version=2, held=IN_THE_APP)


@pytest.mark.parametrize("far", [1e6, -1e9, np.inf, np.nan])
def test_a_model_that_ran_away_is_told_and_never_wraps_around(far: float, tmp_path: Path) -> None:
    terms = agreement("delta")
    weights = {path: value.copy() for path, value in terms.initial.items()}
    weights["dense/kernel"][0, 0] = far
    state = terms.algorithm.init(weights, SPEC)
    with pytest.raises(DivergedError, match=r"'dense/kernel' of the global model moved .*learning rates"):
        publish(terms, state, Shelf(tmp_path))
