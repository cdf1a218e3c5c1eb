"""What robust rules promise: however a bounded number of clients lies, the others decide where the model goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mobile import wire
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.aggregation.centered_clipping import Clipping
from fl_mobile.aggregation.fltrust import Root
from fl_mobile.aggregation.multi_krum import Suspicion, squared_distances
from fl_mobile.aggregation.order_statistics import Trimming
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.records import ServerState
from fl_mobile.tensors import TensorSpec
from tests.fl_mobile.one_round import ServerRound
from tests.fl_mobile.samples import philox

D = 4
MEAN, VARIANCE = "norm/moving_mean", "norm/moving_variance"
SPEC = {
    "w": TensorSpec((D,)),
    MEAN: TensorSpec((2,), trainable=False),
    VARIANCE: TensorSpec((2,), trainable=False),
}
ROBUST = [name for name, row in AGGREGATORS.items() if not row.mean]
CODEC = parse_codec("none")
LIES = (1e30, -1e30, 1e4, -7.0, 0.0)


def rule_of(name, **parameters):
    row = AGGREGATORS[name]
    return row.with_parameters(row.parameters(**parameters)).beside(update(np.arange(1, D + 1)))


def update(w, mean=0.0, variance=0.0):
    w = np.broadcast_to(np.asarray(w, np.float32), (D,))
    return {"w": w, MEAN: np.full(2, mean, np.float32), VARIANCE: np.full(2, variance, np.float32)}


def result(row, updates):
    aggregate = row.make(SPEC)
    for one in updates:
        aggregate.add(one, 1)
    return aggregate.result()


honest_rows = st.integers(0, 2**32).map(lambda seed: philox(seed).normal(size=(14, D)) + 3)
lies = st.lists(st.lists(st.sampled_from(LIES), min_size=D, max_size=D), min_size=4, max_size=4)


def apart(rows):
    return max(np.linalg.norm(a - b) for a in rows for b in rows)


@given(honest=honest_rows, lies=lies)
@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_coordinates_stay_between_honest_ones(rule, honest, lies):
    row = rule_of(rule, **({"trim": 0.25} if rule == "trimmed-mean" else {}))
    found = result(row, map(update, [*honest, *lies]))["w"]
    assert (found >= honest.astype(np.float32).min(axis=0)).all()
    assert (found <= honest.astype(np.float32).max(axis=0)).all()


@given(honest=honest_rows, lies=lies)
def test_nobody_is_louder_than_the_loudest_honest_client(honest, lies):
    found = result(rule_of("norm-bound"), map(update, [*honest, *lies]))["w"]
    assert np.linalg.norm(found) <= max(np.linalg.norm(row) for row in honest) * (1 + 1e-5)


@given(honest=honest_rows, lies=lies)
def test_who_krum_listens_to_is_near_somebody_honest(honest, lies):
    """Of the neighbours that a listened-to liar is scored by two at least are honest, and no honest score is above
    (n − f − 2)·D² where D is the honest clients' diameter."""
    n, liars = len(honest) + len(lies), 4
    found = result(rule_of("multi-krum", malicious_share=liars / n), map(update, [*honest, *lies]))["w"]
    limit = apart(honest) * (1 + np.sqrt(n - liars - 2))
    assert np.linalg.norm(found - honest.mean(axis=0)) <= limit * (1 + 1e-5)


@given(honest=honest_rows, lies=lies)
def test_a_clipped_centre_stays_near(honest, lies):
    """The median lies in the honest box, at most R = √d·D from anybody honest; a step is at most as long as R is."""
    found = result(rule_of("centered-clipping", clip_steps=3), map(update, [*honest, *lies]))["w"]
    assert np.linalg.norm(found - honest.mean(axis=0)) <= 8 * np.sqrt(D) * apart(honest)


@given(rows=st.lists(st.lists(st.sampled_from(LIES), min_size=D, max_size=D), min_size=1, max_size=9))
def test_the_servers_own_update_bounds_even_a_cohort_of_liars(rows):
    own = np.arange(1, D + 1)
    found = result(rule_of("fltrust"), map(update, rows))["w"].astype(np.float64)
    assert np.linalg.norm(found) <= np.linalg.norm(own) * (1 + 1e-5)
    assert found @ own >= 0


def test_what_points_away_from_the_servers_own_update_changes_nothing():
    found = result(rule_of("fltrust"), [update(-np.arange(1, D + 1), mean=5), update(np.zeros(D), variance=5)])
    assert not any(value.any() for value in found.values())


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("lie", [1e30, -1e30])
def test_a_lie_about_statistics_alone_does_not_pass(rule, lie):
    """Their tensors are honest in all that trains: no score and no norm of those tells them from the others."""
    rng = philox(1)
    honest = [update(rng.normal(size=D) + 3, mean=m, variance=m / 2) for m in np.linspace(1, 2, 16)]
    liars = [update(rng.normal(size=D) + 3, mean=lie, variance=lie) for _ in range(4)]
    found = result(rule_of(rule, **({"trim": 0.2} if rule == "trimmed-mean" else {})), [*honest, *liars])
    assert ((found[MEAN] >= 1) & (found[MEAN] <= 2)).all()
    assert ((found[VARIANCE] >= 0.5) & (found[VARIANCE] <= 1)).all()


def test_distances_of_long_close_updates_keep_their_digits():
    rows = 1e6 + philox(2).normal(size=(5, 9000)) * 1e-3
    exact = [[float(((a - b) ** 2).sum()) for b in rows] for a in rows]
    assert np.allclose(squared_distances(rows), exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rule", "parameters", "least"),
    [
        ("mean", {}, 1),
        ("fltrust", {}, 1),
        ("norm-bound", {}, 3),
        ("median", {}, 3),
        ("centered-clipping", {}, 3),
        ("trimmed-mean", {"trim": 0.1}, 3),
        ("trimmed-mean", {"trim": 0.4}, 7),  # two of six at either end would leave two, three leave nothing
        ("trimmed-mean", {"trim": 0.0}, 1),
        ("multi-krum", {"malicious_share": 0.2}, 5),
        ("multi-krum", {"malicious_share": 0.3}, 9),
    ],
)
def test_the_fewest_updates_that_keep_the_promise(rule, parameters, least):
    row = AGGREGATORS[rule]
    row = row.with_parameters(row.parameters(**parameters))
    enough = [n for n in range(1, 40) if not row.too_few(n)]
    last_refused = max((n for n in range(1, 40) if n not in enough), default=0)
    assert enough[0] <= least
    assert last_refused < 30
    if last_refused:
        assert f"gets {last_refused}" in row.too_few(last_refused)
    for n in enough:
        rows = [update(3.0)] * n
        assert np.allclose(result(row.beside(update(3.0)), rows)["w"], 3)


def server(rule):
    start = {path: np.ones(t.shape, np.float32) for path, t in SPEC.items()}
    return ServerRound(ServerState(0, start, SPEC), algorithm=ALGORITHMS["fedavg"].build(), codec=CODEC, rule=rule)


def packet(tensors, examples=5):
    return wire.pack(wire.Header(wire.UPDATE, 0, 0, examples, 0.5), tensors, SPEC, CODEC, philox(0))


@pytest.mark.parametrize("rule", ["median", "norm-bound", "centered-clipping"])
def test_fewer_updates_than_the_promise_needs_do_not_count(rule):
    after, report = server(rule).play([packet(update(1.0)), packet(update(1e30))])
    assert (report.accepted, report.dropped, report.upload_bytes) == (0, {"too-few": 2}, ())
    assert np.array_equal(after.weights["w"], np.ones(D))
    assert after.round_num == 1


@pytest.mark.parametrize("rule", [name for name, row in AGGREGATORS.items() if not row.reference])
def test_what_all_agree_on_is_the_step_however_many_examples_they_claim(rule):
    """Rules that give every update the same say once took the claims for staleness: a step was 13 times too short."""
    after, _ = server(rule).play([packet(update(0.5), examples) for examples in (1, 5, 7, 9, 13, 40, 2, 2, 600)])
    assert np.allclose(after.weights["w"], 1.5, rtol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "median", "trimmed-mean", "norm-bound", "centered-clipping"])
def test_no_rule_lets_a_variance_fall_below_zero(rule):
    """Also where more lie than it can bear: a model whose statistics are no statistics ends the run for everybody."""
    lies = [packet(update(0.0, variance=-9.0)) for _ in range(6)]
    after, _ = server(rule).play([*lies, *(packet(update(0.0)) for _ in range(4))])
    assert (after.weights[VARIANCE] >= 0).all()


def test_defaults_of_parameters_are_those_of_the_functions():
    for name, record in (
        ("trimmed-mean", Trimming), ("multi-krum", Suspicion), ("centered-clipping", Clipping), ("fltrust", Root)
    ):  # fmt: skip
        rows = [update(w) for w in philox(5).normal(size=(11, D))]
        own = AGGREGATORS[name].beside(update(1.0))
        given = AGGREGATORS[name].with_parameters(record()).beside(update(1.0))
        assert np.array_equal(result(own, rows)["w"], result(given, rows)["w"])
