"""What must hold of a private server, one function each; `test_planted` turns every one of them red.

They look at the whole way of packets through the server's functions, and read them by module when they are called, so
that a bug planted there is seen.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client import answer as client
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, FlMobileError, RunError
from fl_mobile.privacy import accounting, ledger, rules
from fl_mobile.privacy.claim import Claim
from fl_mobile.privacy.clipped_sum import UNIT
from fl_mobile.privacy.rules import PrivacyRules
from fl_mobile.records import FitPlan, ServerState, Update
from fl_mobile.server import checkpoint, publish, step
from fl_mobile.server.admission import Admission
from fl_mobile.server.fold import Fold
from fl_mobile.server.step import ServerRules
from fl_mobile.tensors import Tensors, TensorSpec
from fl_mobile.wire.download import Decoded
from tests.fl_mobile.samples import philox

SPEC = {"kernel": TensorSpec((40, 50)), "bias": TensorSpec((50,)), "scale": TensorSpec(())}
KEY = bytes(range(32))
NONE = parse_codec("none")
AGREEMENT = Agreement(
    spec=SPEC,
    initial={path: np.zeros(t.shape, np.float32) for path, t in SPEC.items()},
    algorithm=ALGORITHMS["fedavg"].build(),
    upload=NONE,
    download=NONE,
    bare_packets=True,
)
LAYOUT = wire.Layout(SPEC, NONE)


def server(
    clip_norm: float = 1.0, z: float = 1.0, cohort: int = 10, quantile: float = 0.0, count_noise: float = 5.0
) -> ServerRules:
    private = PrivacyRules(clip_norm, z, cohort, quantile, count_noise=count_noise, first_key=KEY)
    return ServerRules(admission=Admission(weighting="uniform"), privacy=private)


def update(key: int, norm: float) -> Tensors:
    drawn = {path: philox(key).normal(size=t.shape).astype(np.float32) for path, t in SPEC.items()}
    length = math.sqrt(sum(float(np.square(v, dtype=np.float64).sum()) for v in drawn.values()))
    return {path: (v * np.float32(norm / length)).astype(np.float32) for path, v in drawn.items()}


def packet(delta: Tensors, round_num: int = 0, examples: int = 1) -> bytes:
    return LAYOUT.pack(wire.Header(wire.UPDATE, round_num, round_num, examples), delta, philox(0))


def start(private: ServerRules) -> ServerState:
    return AGREEMENT.algorithm.init(AGREEMENT.initial, SPEC)


def fold(private: ServerRules, state: ServerState, packets: list[bytes]) -> tuple[ServerState, Fold]:
    state, assignment = publish.assign(AGREEMENT, private, state, FitPlan())
    return state, step.folding_of(AGREEMENT, private, assignment)(packets)


def play(private: ServerRules, state: ServerState, packets: list[bytes]) -> tuple[ServerState, Tensors]:
    """Returns the state after a round, and how the model moved."""
    state, assignment = publish.assign(AGREEMENT, private, state, FitPlan())
    folded = step.folding_of(AGREEMENT, private, assignment)(packets)
    after, _ = step.step(
        agreement=AGREEMENT,
        rules=private,
        state=state,
        assignment=assignment,
        decoded=Decoded(0, state.weights),
        folded=folded,
    )
    return after, {path: after.weights[path] - state.weights[path] for path in SPEC}


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in tensors.values()])


def length(values: np.ndarray) -> float:
    return math.sqrt(sum(int(v) ** 2 for v in values.tolist()))


def ints(folded: Fold) -> np.ndarray:
    return np.concatenate([v.reshape(-1) for v in folded.total.total.values()])  # type: ignore[attr-defined]


def one_client_moves_the_sum_by_one_norm() -> None:
    private = server(clip_norm=0.3)
    others = [packet(update(i, 0.2)) for i in range(3)]
    _, without = fold(private, start(private), others)
    for norm, examples in ((1e30, 1), (5.0, 10**9), (0.3, 7), (1e-20, 1)):
        _, with_it = fold(private, start(private), [*others, packet(update(9, norm), examples=examples)])
        assert length(ints(with_it) - ints(without)) <= UNIT


def an_update_within_the_norm_is_added_as_it_is() -> None:
    private, one = server(clip_norm=2.0), update(1, 1.5)
    _, folded = fold(private, start(private), [packet(one)])
    assert np.abs(ints(folded) - flat(one) * UNIT / 2.0).max() < 1.001
    assert length(ints(fold(private, start(private), [packet(update(1, 50.0))])[1])) > 0.999 * UNIT


def examples_do_not_weigh() -> None:
    private = server()
    folds = [fold(private, start(private), [packet(update(1, 0.5), examples=n)])[1] for n in (1, 1000)]
    assert np.array_equal(ints(folds[0]), ints(folds[1]))


def what_is_taken_out_leaves_nothing() -> None:
    private = server()
    _, assignment = publish.assign(AGREEMENT, private, start(private), FitPlan())
    folding = step.folding_of(AGREEMENT, private, assignment)
    packets = [packet(update(i, 0.3 * i + 0.1)) for i in range(5)]
    folded = folding(packets)
    folded.merge(folding(packets, sign=-1))
    assert not ints(folded).any()
    assert (folded.total.within, folded.total.weight) == (0, 0)  # type: ignore[attr-defined]


def every_coordinate_gets_noise_of_the_right_size() -> None:
    for z, quantile in ((1.0, 0.0), (2.5, 0.0), (1.0, 0.5)):
        private = server(clip_norm=0.5, z=z, cohort=10, quantile=quantile, count_noise=0.8)
        _, moved = play(private, start(private), [])
        noise = flat(moved)
        expected = (z if not quantile else (z**-2 - 1.6**-2) ** -0.5) * 0.5 / 10
        assert (noise != 0).all()
        assert abs(noise.std() / expected - 1) < 0.08, (z, quantile)
        assert abs(noise.mean()) < 0.1 * expected
        for path in SPEC:
            assert np.asarray(moved[path]).any()


def coordinates_that_nobody_sent_get_noise() -> None:
    private, sparse = server(), {path: np.zeros(t.shape, np.float32) for path, t in SPEC.items()}
    sparse["kernel"][0, 0] = 0.5
    _, moved = play(private, start(private), [packet(sparse)])
    assert (flat(moved) != 0).all()


def the_sum_is_divided_by_the_public_cohort() -> None:
    private = server(clip_norm=100.0, z=0.3, cohort=20)
    big = {path: np.zeros(t.shape, np.float32) for path, t in SPEC.items()}
    big["scale"] = np.asarray(100.0, np.float32)
    for count in (1, 7):
        _, moved = play(private, start(private), [packet(big)] * count)
        assert abs(float(moved["scale"]) - count * 100 / 20) < 7 * 0.3 * 100 / 20 / 1


def the_noise_is_added_after_clipping() -> None:
    private = server(clip_norm=1.0, z=8.0, cohort=4)
    _, moved = play(private, start(private), [packet(update(i, 1.0)) for i in range(4)])
    assert np.linalg.norm(flat(moved)) > 0.8 * 8.0 / 4 * math.sqrt(len(flat(moved)))


def a_round_played_again_is_the_same_and_another_sum_has_other_noise() -> None:
    private, packets = server(), [packet(update(i, 0.5)) for i in range(4)]
    once, again = (flat(play(private, start(private), packets)[1]) for _ in range(2))
    assert np.array_equal(once, again), "noise drawn twice for one sum"
    fewer = flat(play(private, start(private), packets[1:])[1])
    left = (once - fewer) * 10 - flat(update(0, 0.5))
    assert np.linalg.norm(left) > 10, "the same noise on two sums gives their difference away"


def noise_is_new_every_round_and_its_key_is_gone() -> None:
    private = server()
    state, first = play(private, start(private), [])
    assert state.privacy is not None
    assert (state.privacy.key != KEY, state.privacy.charged) == (True, 1)
    later, second = play(private, state, [])
    assert later.privacy is not None
    assert later.privacy.charged == 2
    assert abs(np.corrcoef(flat(first), flat(second))[0, 1]) < 0.1
    assert not (flat(first) == flat(second)).any()
    same_key, _ = play(private, replace(state, privacy=replace(state.privacy, key=KEY)), [])
    assert not np.array_equal(flat(same_key.weights) - flat(state.weights), flat(first)), "the round is in the key"


def coordinates_get_independent_noise() -> None:
    noise = flat(play(server(), start(server()), [])[1])
    kernel, bias = noise[:2000], noise[2000:2050]
    assert abs(np.corrcoef(kernel[1:], kernel[:-1])[0, 1]) < 0.1
    assert abs(np.corrcoef(kernel[:50], bias)[0, 1]) < 0.5
    assert len(np.unique(noise)) > 2000


def no_seed_gives_the_noise() -> None:
    secret = PrivacyRules(1.0, 1.0, 10)
    keys = {secret.start().key for _ in range(8)}
    assert len(keys) == 8
    assert all(len(key) == 32 and len(set(key)) > 8 for key in keys)
    assert len({rules.key_of_seed(seed) for seed in range(-4, 60)}) == 64
    assert "key" not in repr(secret.start()), "printed with its record"


def the_cohort_is_drawn_from_the_secret() -> None:
    private = PrivacyRules(1.0, 1.0, 10)
    assert len({rules.cohort_seed(private.start()) for _ in range(8)}) == 8
    state, _ = play(server(), start(server()), [])
    assert state.privacy is not None
    assert rules.cohort_seed(state.privacy) != rules.cohort_seed(server().privacy.start())  # type: ignore[union-attr]


def an_adaptive_norm_finds_the_median() -> None:
    for first in (0.1, 5.0):
        private = server(clip_norm=first, z=0.3, cohort=20, quantile=0.5, count_noise=0.5)
        state, norms = start(private), np.linspace(0.8, 1.2, 20)
        for t in range(60):
            packets = [packet(update(i, float(norm)), t) for i, norm in enumerate(norms)]
            state, folded = fold(private, state, packets)
            assert state.privacy is not None
            assert private.privacy is not None
            _, privacy = step.release(folded.total, private.privacy, state.privacy, t)  # type: ignore[arg-type]
            state = replace(state, round_num=t + 1, privacy=privacy)
        assert state.privacy is not None
        assert 0.9 < state.privacy.clip_norm < 1.1, (first, state.privacy.clip_norm)


def the_count_within_the_norm_is_noised() -> None:
    packets, found = [packet(update(i, 0.5)) for i in range(6)], []
    for key in (1, 2, 3):
        private = server(quantile=0.5, count_noise=2.0)
        assert private.privacy is not None
        private = replace(private, privacy=replace(private.privacy, first_key=bytes([key]) * 32))
        state, _ = play(private, start(private), packets)
        assert state.privacy is not None
        found.append(-math.log(state.privacy.clip_norm) / 0.2)
    assert len(set(found)) == 3
    wide = []
    for key in range(60):
        private = server(quantile=0.5, count_noise=20.0, cohort=100)
        assert private.privacy is not None
        private = replace(private, privacy=replace(private.privacy, first_key=bytes([key]) * 32))
        state, folded = fold(private, start(private), [])
        _, privacy = step.release(folded.total, private.privacy, state.privacy, 0)  # type: ignore[arg-type]
        wide.append(-math.log(privacy.clip_norm) / 0.2 * 100)
    assert 13 < float(np.std(wide)) < 28, "σ_b = 20 clients"


def a_fixed_norm_stays() -> None:
    private = server(clip_norm=0.25)
    state, _ = play(private, start(private), [packet(update(1, 9.0))])
    assert state.privacy is not None
    assert state.privacy.clip_norm == 0.25


def a_packet_says_nothing_but_its_update() -> None:
    private = server()
    _, assignment = publish.assign(AGREEMENT, private, start(private), FitPlan())
    terms = client.terms_of(AGREEMENT, assignment, Decoded(0, AGREEMENT.initial), {})
    sent = [
        client.answer(terms, Update(update(1, 0.5), n, {"loss": loss}), 3).packet for n, loss in ((1, 0.5), (977, 2.5))
    ]
    assert sent[0] == sent[1]
    head = LAYOUT.header(sent[0])
    assert (head.num_examples, math.isnan(head.loss)) == (1, True)


def clients_are_told_the_norm_of_their_round() -> None:
    private = server(clip_norm=0.75)
    assert publish.assign(AGREEMENT, private, start(private), FitPlan())[1].clip_norm == 0.75


def model_key_and_charge_are_kept_together() -> None:
    private = server()
    state, _ = play(private, start(private), [packet(update(1, 0.5))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.npz")
        checkpoint.save(path, state, {})
        back, _ = checkpoint.load(path, SPEC)
        assert back.privacy == state.privacy
        assert path.stat().st_mode & 0o077 == 0, "others can read the key"
        after = [flat(play(private, s, [])[1]) for s in (state, back)]
        assert np.array_equal(*after)
        assert state.privacy is not None
        for damage in ({"charged": 0}, {"charged": 2}, {"clip_norm": math.nan}, {"key": b"short"}):
            checkpoint.save(path, replace(state, privacy=replace(state.privacy, **damage)), {})
            _refused(RunError, lambda: checkpoint.load(path, SPEC))


def servers_that_break_the_claim_are_refused() -> None:
    private = PrivacyRules(1.0, 1.0, 10)
    for admission in (Admission(), Admission("uniform", clip_norm=1.0), Admission("uniform", max_staleness=3)):
        _refused(ConfigError, lambda admission=admission: ServerRules(admission=admission, privacy=private))
    _refused(ConfigError, lambda: PrivacyRules(1.0, 0.1, 10))
    _refused(ConfigError, lambda: PrivacyRules(1.0, 1.0, 1))
    _refused(ConfigError, lambda: PrivacyRules(0.0, 1.0, 10))
    _refused(ConfigError, lambda: PrivacyRules(1.0, 1.0, 10, 0.5, count_noise=0.5))
    statistics = replace(AGREEMENT, spec={**SPEC, "norm/moving_mean": TensorSpec((3,), trainable=False)})
    scaffold = replace(AGREEMENT, algorithm=ALGORITHMS["scaffold"].build())
    for agreement in (statistics, scaffold, replace(AGREEMENT, memory="error-feedback")):
        _refused(
            ConfigError, lambda agreement=agreement: publish.assign(agreement, server(), start(server()), FitPlan())
        )


def claims_that_mean_nothing_are_refused() -> None:
    good = Claim("poisson", 1000, 100, 1.1, 1e-5)
    for worse in ({"delta": 1e-3}, {"delta": 0.0}, {"cohort": 1}, {"noise_multiplier": 0.2}, {"sampling": "luck"}):
        _refused(ConfigError, lambda worse=worse: replace(good, **worse))
    assert good.rate == 0.1


def epsilon_is_the_proven_one() -> None:
    for sampling, expected in (("poisson", 5.913), ("fixed-size", 53.65), ("none-assumed", 79.28)):
        found = accounting.curve(Claim(sampling, 1000, 100, 1.1, 1e-5), [1, 100])
        assert abs(found[1][0] / expected - 1) < 2e-3, sampling  # type: ignore[operator]
        assert found[0][0] < found[1][0] <= found[1][2]  # type: ignore[operator]
    assert abs(accounting.curve(Claim("poisson", 1000, 100, 1.1, 1e-5), [100])[0][1] / 6.621 - 1) < 2e-3  # type: ignore[operator]


def the_ledger_never_books_less_than_was_played() -> None:
    counts = ledger.counts_to(700)
    book = ledger.Ledger(
        Claim("none-assumed", 100, 10, 1.0, 1e-3), tuple(ledger.Spent(t, float(t), None, float(t)) for t in counts)
    )
    assert all(t <= book.after(t).epsilon <= 1.01 * t for t in range(701))
    _refused(ConfigError, lambda: book.after(701))


def _refused(kind: type[FlMobileError], what: Callable[[], object]) -> None:
    try:
        what()
    except kind:
        return
    raise AssertionError(f"{what} was not refused")


CHECKS: tuple[Callable[[], None], ...] = (
    one_client_moves_the_sum_by_one_norm,
    an_update_within_the_norm_is_added_as_it_is,
    examples_do_not_weigh,
    what_is_taken_out_leaves_nothing,
    every_coordinate_gets_noise_of_the_right_size,
    coordinates_that_nobody_sent_get_noise,
    the_sum_is_divided_by_the_public_cohort,
    the_noise_is_added_after_clipping,
    a_round_played_again_is_the_same_and_another_sum_has_other_noise,
    noise_is_new_every_round_and_its_key_is_gone,
    coordinates_get_independent_noise,
    no_seed_gives_the_noise,
    the_cohort_is_drawn_from_the_secret,
    an_adaptive_norm_finds_the_median,
    the_count_within_the_norm_is_noised,
    a_fixed_norm_stays,
    a_packet_says_nothing_but_its_update,
    clients_are_told_the_norm_of_their_round,
    model_key_and_charge_are_kept_together,
    servers_that_break_the_claim_are_refused,
    claims_that_mean_nothing_are_refused,
    epsilon_is_the_proven_one,
    the_ledger_never_books_less_than_was_played,
)
