"""Audits against what is known: noise of known size, losses of known overlap, pictures that are in the gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.audit.canaries import bound_of, canary_bound
from device_sim.audit.gaussian import LARGEST, delta_of, epsilon_of
from device_sim.audit.inversion import by_division, labels_in, psnr
from device_sim.audit.membership import area, membership
from device_sim.audit.own_noise import packet_bound, sum_bound
from device_sim.audit.pictures import SHADES, contact_sheet
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, DataError
from fl_mobile.privacy import PrivacyRules
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.records import FitPlan
from fl_mobile.server.admission import Admission
from fl_mobile.server.step import ServerRules
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import TensorSpec
from tests.fl_mobile.samples import philox

SPEC = {"w": TensorSpec((150, 100)), "b": TensorSpec((100,)), "m": TensorSpec((7,), trainable=False)}
DELTA = 1e-5


def bound(tmp_path, *, noise=0.0, seed=0, codec="none", rule="mean", spec=SPEC, algorithm="fedavg"):
    initial = {path: np.zeros(t.shape, np.float32) for path, t in spec.items()}
    none = parse_codec("none")
    agreement = Agreement(spec, initial, ALGORITHMS[algorithm].build(), parse_codec(codec), none)
    rules = ServerRules(Admission(weighting="uniform", clip_norm=2.0), AGGREGATORS[rule])
    return canary_bound(
        agreement, rules, FitPlan(), Shelf(tmp_path), delta=DELTA, seed=seed, noise=noise
    )  # fmt: skip


@pytest.mark.parametrize(("shift", "delta"), [(1.0, 1e-5), (0.3, 1e-6), (3.0, 1e-5), (0.05, 1e-2), (8.0, 1e-8)])
def test_epsilon_and_delta_are_inverse(shift, delta):
    epsilon = epsilon_of(shift, delta)
    assert epsilon == 0 or delta_of(shift, epsilon) == pytest.approx(delta, rel=1e-6)
    assert delta_of(shift, epsilon) <= delta * (1 + 1e-6)


def test_epsilon_of_a_known_mechanism_and_of_none():
    """dp-accounting's PLD gives 4.377 for z = 1 and δ = 1e-5, 676.6 for 1000 rounds of it at 1e-8."""
    assert epsilon_of(1.0, 1e-5) == pytest.approx(4.377, abs=2e-3)
    assert epsilon_of(math.sqrt(1000), 1e-8) == pytest.approx(676.6, abs=0.2)
    assert epsilon_of(1e9, 1e-5) == LARGEST
    assert epsilon_of(0, 1e-5) == epsilon_of(-1, 1e-5) == 0


@pytest.mark.parametrize(("noise", "seed"), [(0.5, 0), (1.0, 0), (1.0, 1), (1.0, 2), (2.0, 0)])
def test_the_bound_is_below_the_claim_and_not_far_below(noise, seed, tmp_path):
    found, claimed = bound(tmp_path, noise=noise, seed=seed), epsilon_of(1 / noise, DELTA)
    assert found.accepted == found.canaries == 500
    assert 0.5 * claimed <= found.epsilon_low <= claimed
    assert found.epsilon_low < found.epsilon


@pytest.mark.parametrize(("noise", "codec"), [(1.0, "none"), (0.6, "q8")])
def test_what_a_private_server_claims_holds_and_is_not_far_above(noise, codec, tmp_path):
    """The server's own noise, through its own code: a multiplier that is taken for another shows here."""
    spec = {"w": TensorSpec((60, 50))}
    initial = {path: np.zeros(t.shape, np.float32) for path, t in spec.items()}
    agreement = Agreement(
        spec, initial, ALGORITHMS["fedavg"].build(), parse_codec(codec), parse_codec("none"), bare_packets=True
    )
    private = PrivacyRules(clip_norm=2.0, noise_multiplier=noise, cohort=40, first_key=bytes(range(32)))
    rules = ServerRules(Admission(weighting="uniform"), privacy=private)
    found = canary_bound(agreement, rules, FitPlan(), Shelf(tmp_path), delta=DELTA, seed=0)
    claimed = epsilon_of(1 / noise, DELTA)
    assert 0.5 * claimed <= found.epsilon_low <= claimed


@pytest.mark.parametrize(("noise", "codec"), [(1.0, "none"), (2.0, "q8")])
def test_what_a_client_claims_of_its_own_packet_holds_and_is_not_far_above(noise, codec):
    spec = {"w": TensorSpec((60, 50))}
    initial = {path: np.zeros(t.shape, np.float32) for path, t in spec.items()}
    agreement = Agreement(spec, initial, ALGORITHMS["fedavg"].build(), parse_codec(codec), parse_codec("none"))
    found = packet_bound(agreement, LocalNoise(clip_norm=0.7, noise_multiplier=noise, answers=1), delta=DELTA, seed=0)
    claimed = epsilon_of(2 / noise, DELTA)
    assert 0.5 * claimed <= found.epsilon_low <= claimed


@pytest.mark.parametrize(("noise", "least", "numbers"), [(0.7, 5, 4096), (1.5, 10, 256)])
def test_what_is_claimed_of_the_smallest_masked_sum_holds_and_is_not_far_above(noise, least, numbers):
    shares = ShareNoise(clip_norm=0.7, noise_multiplier=noise, answers=1, numbers=numbers, group=10, least=least)
    found, claimed = sum_bound(shares, delta=DELTA, seed=0), epsilon_of(1 / noise, DELTA)
    assert 0.5 * claimed <= found.epsilon_low <= claimed


def test_half_of_the_noise_is_seen(monkeypatch):
    """It catches: a share for twice as many clients as there must be, and noise that is not drawn at all."""
    shares = ShareNoise(clip_norm=0.7, noise_multiplier=1.0, answers=1, numbers=4096, group=10, least=5)
    monkeypatch.setattr(ShareNoise, "share", lambda self, least: math.ceil(self.sigma / (2 * math.sqrt(least))))
    assert sum_bound(shares, delta=DELTA, seed=0).epsilon_low > epsilon_of(1.0, DELTA)


@pytest.mark.parametrize("codec", ["none", "q8", "ecsq"])
def test_without_noise_the_bound_is_large(codec, tmp_path):
    assert bound(tmp_path, codec=codec).epsilon_low > 5


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam", "fedavgm"])
def test_what_the_server_does_afterwards_hides_nothing_but_costs_the_bound_little(algorithm, tmp_path):
    assert bound(tmp_path, algorithm=algorithm).epsilon_low > 5


@given(seed=st.integers(0, 2**32), shift=st.floats(0.0, 4.0))
@settings(deadline=None)
def test_of_gaussians_of_known_distance_the_bound_is_below_the_truth(seed, shift):
    rng = philox(seed)
    found = bound_of(rng.normal(shift, 1, 500), rng.normal(0, 1, 500), accepted=500, delta=DELTA)
    # At one-sided 99.5 % one of 200 would be above; four more standard errors leave none.
    assert found.epsilon_low <= epsilon_of(shift + 2 * math.sqrt(2 / 500 + shift**2 / 2000), DELTA)
    assert found.epsilon_low >= epsilon_of(shift - 7 * math.sqrt(2 / 500 + shift**2 / 2000), DELTA)


def test_a_small_model_and_a_rule_that_listens_to_nobody_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="too small to audit"):
        bound(tmp_path, spec={"w": TensorSpec((50,))})
    with pytest.raises(ConfigError, match="listens to none"):
        bound(tmp_path, rule="fltrust")


def test_advantage_of_known_overlap():
    """Members' losses uniform on [0, 1], others' on [½, 1½]: the best threshold has an advantage of ½."""
    rng = philox(0)
    found = membership(rng.uniform(0, 1, 4000), rng.uniform(0.5, 1.5, 4000), seed=0)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.1
    assert found.area == pytest.approx(1 - 0.5**3, abs=0.02)


def test_no_advantage_is_found_where_there_is_none():
    """The interval holds 0 in nineteen of twenty; a threshold judged on what chose it is always above."""
    found = [membership(philox(s).normal(size=300), philox(s + 1000).normal(size=300), seed=s) for s in range(100)]
    assert sum(one.low <= 0 <= one.high for one in found) >= 88
    assert abs(np.mean([one.advantage for one in found])) < 0.02


def test_membership_needs_examples_of_both_kinds():
    with pytest.raises(DataError, match="at least 20 held-out examples, got 3"):
        membership(np.zeros(100), np.zeros(3), seed=0)


@given(
    members=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    others=st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_area_is_that_of_all_pairs(members, others):
    pairs = [(m < o) + (m == o) / 2 for m in members for o in others]
    assert area(np.array(members, float), np.array(others, float)) == pytest.approx(np.mean(pairs))


def dense_gradient(x, y, hidden=60, classes=4):
    """Of softmax cross-entropy behind one rectified layer, in NumPy."""
    rng = philox(4)
    first, second = rng.normal(size=(x.shape[1], hidden)) / 8, rng.normal(size=(hidden, classes)) / 4
    before = x @ first
    out = np.maximum(before, 0) @ second
    p = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    back = (p @ second.T) * (before > 0) / len(y)
    return {"k": (x.T @ back).astype(np.float32), "b": back.sum(axis=0).astype(np.float32), "o": p.mean(axis=0)}


def test_a_picture_is_the_gradient_of_a_dense_layer_divided_by_that_of_its_bias():
    x = philox(1).uniform(0, 1, size=(1, 36))
    x[0, 3] = 1.0
    found = by_division(dense_gradient(x, np.array([2])), "k", "b", shape=(6, 6, 1))
    assert all(psnr(one, x[0].reshape(6, 6, 1)) > 60 for one in found)


def test_pictures_of_a_batch_are_among_what_units_say():
    x = philox(2).uniform(0, 1, size=(2, 36))
    x[:, 5] = 1.0
    found = by_division(dense_gradient(x, np.array([0, 3])), "k", "b", shape=(6, 6, 1))
    for one in x:
        assert max(psnr(other, one.reshape(6, 6, 1)) for other in found) > 50


def test_noise_hides_the_picture():
    x = philox(1).uniform(0, 1, size=(1, 36))
    gradient = dense_gradient(x, np.array([2]))
    norm = math.sqrt(sum(float((v**2).sum()) for v in gradient.values()))
    noisy = {p: v + philox(9).normal(0, norm, v.shape) for p, v in gradient.items()}
    found = by_division(noisy, "k", "b", shape=(6, 6, 1))
    assert max(psnr(one, x[0].reshape(6, 6, 1)) for one in found) < 15


@pytest.mark.parametrize("y", [[1], [3], [0, 2]])
def test_labels_stand_in_the_last_bias(y):
    x = philox(5).uniform(0, 1, size=(len(y), 36))
    gradient = dense_gradient(x, np.array(y))
    assert set(labels_in({"o": gradient["o"].astype(np.float32)}, len(y), 4).tolist()) == set(y)


def test_a_contact_sheet_holds_every_pixel_that_is_not_black():
    picture = np.zeros((1, 3, 4, 1), np.float32)
    picture[0, 1, 2] = 1.0
    picture[0, 2, 0] = 0.5
    sheet = contact_sheet([("original", picture), ("found", np.zeros_like(picture))], says="two")
    paths = [element.get("d") for element in sheet.iter("path")]
    assert paths == ["M0 2h1v1h-1z", "M2 1h1v1h-1z"]
    assert SHADES == 16
