"""Batch-norm statistics through real packets: the variance of a mixture, never below zero, however late they come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_mobile import wire
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.codecs import parse_codec
from fl_mobile.records import Assignment, FitPlan
from fl_mobile.server.admission import Admission
from fl_mobile.server.publish import moved_since, publish
from fl_mobile.server.statistics import moments
from fl_mobile.server.step import ServerRules, folding_of, step
from fl_mobile.tensors import TensorSpec
from tests.fl_mobile.samples import philox

CHANNELS = 4
SPEC = {
    "w": TensorSpec((3,)),
    "norm/moving_mean": TensorSpec((CHANNELS,), trainable=False),
    "norm/moving_variance": TensorSpec((CHANNELS,), trainable=False),
}
MEAN, VARIANCE = "norm/moving_mean", "norm/moving_variance"


class Points(dict):
    """A shelf in memory."""

    def put(self, what, round_num, tensors):
        self[what, round_num] = tensors

    def get_exactly(self, what, round_num):
        return self.get((what, round_num))

    def forget(self, what, before, *, keep):
        for key in sorted(k for k in self if k[0] == what and k[1] < before)[:-keep]:
            del self[key]


class Server:
    """Publishes, takes packets of any version, steps."""

    def __init__(self, mean, variance, *, max_staleness=0, rule="mean", weighting="examples", algorithm="fedavg"):
        initial = {"w": np.zeros(3, np.float32), MEAN: np.float32(mean), VARIANCE: np.float32(variance)}
        codec = parse_codec("none")
        self.agreement = Agreement(SPEC, initial, ALGORITHMS[algorithm].build(), codec, codec)
        admission = Admission(weighting=weighting, max_staleness=max_staleness)
        self.rules = ServerRules(admission, AGGREGATORS[rule])
        self.state, self.points = self.agreement.algorithm.init(initial, SPEC), Points()
        self.publish()

    def publish(self):
        late = self.rules.admission.max_staleness
        self.decoded = publish(self.agreement, self.state, self.points, max_staleness=late).decoded

    def packet(self, mean, variance, examples=1, *, decoded=None):
        """Returns what a client sends that ends with these statistics."""
        decoded = decoded or self.decoded
        after = {"w": decoded.weights["w"], MEAN: np.float32(mean), VARIANCE: np.float32(variance)}
        delta = {path: value - decoded.weights[path] for path, value in after.items()}
        header = wire.Header(wire.UPDATE, decoded.version, decoded.version, examples, 0.5)
        return wire.pack(header, delta, SPEC, self.agreement.upload, philox(0))

    def play(self, packets):
        assignment = Assignment(self.state.round_num, FitPlan(), self.agreement.upload)
        moved = moved_since(self.points, self.state.round_num, self.rules.admission.max_staleness)
        folded = folding_of(self.agreement, self.rules, assignment, moved)(packets)
        assert not folded.dropped
        self.state, _ = step(
            agreement=self.agreement,
            rules=self.rules,
            state=self.state,
            assignment=assignment,
            decoded=self.decoded,
            folded=folded,
        )
        self.publish()


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam", "fedyogi"])
def test_fresh_statistics_become_those_of_all_examples_together(algorithm):
    """The oracle is NumPy's mean and variance of everything at once; means far from zero must not cost digits."""
    rng = philox(3)
    parts = [rng.normal(50 + 3 * i, 0.5 + i, size=(20 + 30 * i, CHANNELS)) for i in range(4)]
    server = Server(np.full(CHANNELS, 52.0), np.ones(CHANNELS), algorithm=algorithm)
    server.play([server.packet(x.mean(axis=0), x.var(axis=0), len(x)) for x in parts])
    everything = np.concatenate(parts)
    np.testing.assert_allclose(server.state.weights[MEAN], everything.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(server.state.weights[VARIANCE], everything.var(axis=0), rtol=1e-4)


def test_a_late_packet_counts_as_the_values_it_holds():
    """The run of the report: the variance falls, and a client that still saw it high comes late."""
    server = Server(np.zeros(CHANNELS), np.ones(CHANNELS), max_staleness=5, weighting="uniform")
    late = server.packet(np.zeros(CHANNELS), np.full(CHANNELS, 0.1))
    server.play([server.packet(np.zeros(CHANNELS), np.full(CHANNELS, 0.1))])
    np.testing.assert_allclose(server.state.weights[VARIANCE], 0.1, rtol=1e-5)
    server.play([late])
    np.testing.assert_allclose(server.state.weights[VARIANCE], 0.1, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    plays=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=8),
    rule=st.sampled_from(["mean", "median"]),
)
def test_no_order_and_no_staleness_takes_a_variance_below_zero(seed, plays, rule):
    rng = philox(seed)
    server = Server(rng.normal(size=CHANNELS), rng.exponential(size=CHANNELS), max_staleness=6, rule=rule)
    seen = [server.decoded]
    for staleness in plays:
        packets = []
        for late in staleness:
            version = seen[max(0, len(seen) - 1 - late)]
            shrunk = version.weights[VARIANCE] * rng.choice([0, 1e-6, 0.1, 1, 3])
            values = np.abs(rng.normal(size=CHANNELS) * shrunk), int(rng.integers(1, 90))
            packets.append(server.packet(5 * rng.normal(size=CHANNELS), *values, decoded=version))
        server.play(packets)
        seen.append(server.decoded)
        assert (server.state.weights[VARIANCE] >= 0).all()
        assert all(np.isfinite(value).all() for value in server.state.weights.values())


def test_statistics_without_a_partner_are_averaged_plainly():
    assert moments({VARIANCE: SPEC[VARIANCE]}) == {}
    assert moments({MEAN: SPEC[MEAN], VARIANCE: TensorSpec((9,), trainable=False)}) == {}
    assert moments({MEAN: TensorSpec((4,)), VARIANCE: TensorSpec((4,))}) == {}
