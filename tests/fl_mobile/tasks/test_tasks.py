"""Laws of the task table: metrics are scikit-learn's, whole or added up; targets say their task; NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from fl_mobile.errors import ConfigError, DataError
from fl_mobile.local import LOSSES
from fl_mobile.records import FitPlan
from fl_mobile.tasks import METRICS, TASKS, added, decide, decided, measured, prepared, strata_of, tally_of, told
from fl_mobile.tasks.heads import MEAN_SCORE, Head, heads_of, joined, multi_head
from fl_mobile.tasks.metrics import metric_row, per_class_recall
from fl_mobile.tasks.table import BITS, CLASSES

Rows = tuple[np.ndarray, np.ndarray]
K = 5
SHAPES = {"classification": (), "sequence": (7,), "segmentation": (4, 3), "regression": (3,), "reconstruction": (2, 4)}


HEADS = (
    Head("mood", "classification", (), (K,), "sparse-categorical-crossentropy"),
    Head("tags", "multi-label", (K,), (K,), "binary-crossentropy", 2.0),
    Head("next", "sequence", (7,), (7, K), "sparse-categorical-crossentropy", 0.5),
    Head("pain", "regression", (3,), (3,), "huber"),
)
SEVERAL = multi_head(HEADS)


def drawn(task: str, count: int, seed: int, *, offset: float = 0.0) -> Rows:
    """Returns targets and outputs (logits where the task has them) of a model that is right more often than not."""
    if heads := heads_of(task):
        parts = {head.name: drawn(head.task, count, seed, offset=offset) for head in heads}
        return tuple(joined({name: pair[i] for name, pair in parts.items()}) for i in (0, 1))
    rng, row = np.random.default_rng(seed), TASKS[task]
    if row.kind == BITS:
        y = (rng.uniform(size=(count, K)) < 0.3).astype(np.float32)
        return y, (2 * y - 1 + 1.5 * rng.standard_normal(y.shape)).astype(np.float32)
    shape = (count, *SHAPES[task])
    if row.kind != CLASSES:
        y = (offset + rng.standard_normal(shape)).astype(np.float32)
        return y, (y + 0.7 * rng.standard_normal(shape)).astype(np.float32)
    y = rng.integers(-1 if row.padded else 0, K, shape)
    return y, (2.0 * np.eye(K)[np.maximum(y, 0)] + rng.standard_normal((*shape, K))).astype(np.float32)


def flat_classes(y: np.ndarray, out: np.ndarray) -> Rows:
    return y[y >= 0], out[y >= 0]


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows.astype(np.float64) - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def of_classes(metric: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    def of(y: np.ndarray, out: np.ndarray) -> float:
        truth, rows = flat_classes(y, out)
        return float(metric(truth, rows.argmax(axis=-1)))

    return of


def f1(y: np.ndarray, out: np.ndarray, average: str) -> float:
    return float(sk.f1_score(y, out > 0, average=average, zero_division=0))


def present(metric: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """Mean over labels that some examples have and some have not, as scikit-learn asks of its callers."""

    def of(y: np.ndarray, out: np.ndarray) -> float:
        kept = (y.min(axis=0) < y.max(axis=0)).nonzero()[0]
        return float(np.mean([metric(y[:, k], out[:, k]) for k in kept]))

    return of


def top_3(y: np.ndarray, out: np.ndarray) -> float:
    truth, rows = flat_classes(y, out)
    return float(sk.top_k_accuracy_score(truth, rows, k=3, labels=range(K)))


def perplexity(y: np.ndarray, out: np.ndarray) -> float:
    truth, rows = flat_classes(y, out)
    return float(np.exp(sk.log_loss(truth, softmax(rows), labels=range(K))))


def numbers(metric: Callable[..., float], **options: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda y, out: float(metric(y.reshape(len(y), -1), out.reshape(len(y), -1), **options))


ORACLES: dict[tuple[str, str], Callable[[np.ndarray, np.ndarray], float]] = {
    ("multi-label", "macro-f1"): lambda y, out: f1(y, out, "macro"),
    ("multi-label", "micro-f1"): lambda y, out: f1(y, out, "micro"),
    ("multi-label", "bit-accuracy"): lambda y, out: 1 - float(sk.hamming_loss(y, out > 0)),
    ("multi-label", "auc"): present(sk.roc_auc_score),
    ("multi-label", "average-precision"): present(sk.average_precision_score),
    **{(task, "accuracy"): of_classes(sk.accuracy_score) for task in ("classification", "sequence", "segmentation")},
    **{(task, "macro-f1"): of_classes(lambda y, p: sk.f1_score(y, p, average="macro", zero_division=0))
       for task in ("classification", "sequence")},
    ("classification", "balanced-accuracy"): of_classes(sk.balanced_accuracy_score),
    **{(task, "top-3"): top_3 for task in ("classification", "sequence")},
    ("sequence", "perplexity"): perplexity,
    ("segmentation", "mean-iou"): of_classes(lambda y, p: sk.jaccard_score(y, p, average="macro", zero_division=0)),
    **{(task, "r2"): numbers(sk.r2_score, multioutput="variance_weighted")
       for task in ("regression", "reconstruction")},
    **{(task, "mae"): numbers(sk.mean_absolute_error) for task in ("regression", "reconstruction")},
    ("regression", "rmse"): numbers(sk.root_mean_squared_error),
    ("reconstruction", "mse"): numbers(sk.mean_squared_error),
}  # fmt: skip
TOLD_ELSEWHERE = {("classification", "auc")}  # of two classes: below


def test_every_metric_of_every_task_has_an_oracle() -> None:
    assert {(t, m) for t, row in TASKS.items() for m in row.metrics} == ORACLES.keys() | TOLD_ELSEWHERE
    for row in TASKS.values():
        assert METRICS[row.metrics[0]].larger_is_better, "a score is 1 for perfect answers"
        assert row.score_name
        assert set(row.losses) <= LOSSES.keys()


@pytest.mark.parametrize(("task", "metric"), ORACLES)
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(task: str, metric: str, seed: int) -> None:
    y, out = drawn(task, 200, seed)
    found = measured(task, tally_of(task, y, out, from_logits=True))
    assert found[metric] == pytest.approx(ORACLES[task, metric](y, out), rel=1e-6)
    assert next(iter(found)) == TASKS[task].metrics[0], "the score comes first"


@pytest.mark.parametrize("task", [*TASKS, SEVERAL])
@given(seed=st.integers(0, 2**20), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_tallies_of_parts_add_up_to_that_of_the_whole(task: str, seed: int, cuts: list[int]) -> None:
    y, out = drawn(task, 60, seed)
    parts = [(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True) if b > a]
    tallies = [tally_of(task, y[a:b], out[a:b], from_logits=True) for a, b in parts]
    whole, sums = measured(task, tally_of(task, y, out, from_logits=True)), measured(task, added(tallies))
    assert sums == pytest.approx(whole, rel=1e-9)


def test_each_of_several_heads_is_told_as_if_it_were_alone_and_the_score_is_their_weighted_mean() -> None:
    found = measured(SEVERAL, tally_of(SEVERAL, *drawn(SEVERAL, 60, 4), from_logits=True))
    alone = {head.name: measured(head.task, tally_of(head.task, *drawn(head.task, 60, 4), from_logits=True))
             for head in HEADS}  # fmt: skip
    for head in HEADS:
        for name, value in alone[head.name].items():
            assert found[f"{head.name}/{name}"] == pytest.approx(value, rel=1e-6)
    scores = [(head.weight, alone[head.name][TASKS[head.task].metrics[0]]) for head in HEADS]
    assert found[MEAN_SCORE] == pytest.approx(np.average([s for _, s in scores], weights=[w for w, _ in scores]))
    assert next(iter(found)) == MEAN_SCORE
    assert not metric_row("pain/mae").larger_is_better
    assert metric_row("mood/accuracy").larger_is_better


NAMES, SIZES = st.text("abcxyz_", min_size=1, max_size=4), st.lists(st.integers(1, 99), min_size=1, max_size=3)


@given(st.lists(st.tuples(NAMES, st.sampled_from(sorted(TASKS)), SIZES, SIZES, st.floats(0.01, 99)), min_size=1))
def test_heads_are_spelled_and_read_back(rows: list[tuple[str, str, list[int], list[int], float]]) -> None:
    heads = tuple(Head(n, t, tuple(a), tuple(b), TASKS[t].losses[0], float(f"{w:g}")) for n, t, a, b, w in rows)
    assert heads_of(multi_head(heads)) == heads


@pytest.mark.parametrize("text", ["multi-head()", "multi-head(a)", "multi-head(a=regression:1:1:mse)", SEVERAL[:-1]])
def test_heads_that_are_spelled_otherwise_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected multi-head"):
        heads_of(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("multi-head", "needs heads"),
        ("multi-head(a=regresion:1:1:mse*1)", "task of head 'a'"),
        ("multi-head(a=regression:1:1:binary-crossentropy*1)", "cannot train head 'a'"),
    ],
)
def test_heads_that_cannot_be_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        FitPlan(task=text, loss="sum-of-heads")


@pytest.mark.parametrize("lone", [False, True])
def test_auc_of_two_classes_counts_ties_half(lone: bool) -> None:
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 300), rng.integers(-4, 5, 300).astype(np.float32)  # many ties
    out = score[:, None] if lone else np.stack([-score, score], axis=1)
    found = measured("classification", tally_of("classification", y, out, from_logits=True, middle=0.0))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, score))
    assert "auc" not in measured("classification", tally_of("classification", 0 * y, out, from_logits=True))
    assert found["accuracy"] == sk.accuracy_score(y, score > 0)


def test_numbers_are_told_in_their_own_units() -> None:
    y, out = drawn("regression", 50, 0)
    units = np.array([10.0, 0.1, 3.0])
    found = measured("regression", tally_of("regression", y, out, from_logits=True), units)
    raw = numbers(sk.mean_absolute_error)(y * units, out * units)
    assert found["mae"] == pytest.approx(raw)
    assert found["rmse"] == pytest.approx(numbers(sk.root_mean_squared_error)(y * units, out * units))
    assert found["r2"] == pytest.approx(
        numbers(sk.r2_score, multioutput="variance_weighted")(y * units, out * units), rel=1e-6
    )


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_r2_survives_an_offset_and_a_constant(offset: float) -> None:
    y, out = drawn("regression", 400, 1, offset=offset)
    found = measured("regression", tally_of("regression", y, out, from_logits=True))["r2"]
    oracle = numbers(sk.r2_score, multioutput="variance_weighted")
    assert found == pytest.approx(oracle(y.astype(np.float64), out.astype(np.float64)), abs=1e-6)
    constant = np.full((9, 1), 0.1, np.float32)
    assert measured("regression", tally_of("regression", constant, constant, from_logits=True))["r2"] == 1
    assert measured("regression", tally_of("regression", constant, constant + 1, from_logits=True))["r2"] == 0


def test_recall_of_each_class() -> None:
    y, out = drawn("classification", 300, 2)
    found = per_class_recall(tally_of("classification", y, out, from_logits=True))
    np.testing.assert_allclose(found, sk.recall_score(y, out.argmax(axis=1), average=None))


def test_padding_counts_nowhere() -> None:
    y, out = drawn("sequence", 30, 3)
    longer = np.pad(y, ((0, 0), (0, 2)), constant_values=-1), np.pad(out, ((0, 0), (0, 2), (0, 0)))
    whole, padded = (measured("sequence", tally_of("sequence", *pair, from_logits=True)) for pair in ((y, out), longer))
    assert padded == whole
    assert measured("sequence", tally_of("sequence", np.full((2, 7), -1), out[:2], from_logits=True)) == {}


SEEN = {
    "classification": np.array([0, 2, 1]),
    "multi-label": np.array([[0, 1, 1], [0, 0, 0]]),
    "sequence": np.array([[3, 1, 2], [0, 0, 1]]),
    "segmentation": np.zeros((2, 4, 4), np.uint8),
    "regression": np.array([0.5, 1.25]),
    "reconstruction": None,
}


@pytest.mark.parametrize("task", TASKS)
def test_auto_sees_the_task_in_the_targets(task: str) -> None:
    found, why = decide(SEEN[task])
    assert found == task
    assert why
    if SEEN[task] is not None:
        kept = prepared(task, SEEN[task])
        assert kept.dtype == (np.int64 if TASKS[task].kind == CLASSES else np.float32)
        assert len(strata_of(kept)) == len(kept)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (np.eye(3, dtype=int), r"save y.argmax\(axis=1\).*multi-label"),
        (np.array([[0], [1]]), r"save y.ravel\(\)"),
        (np.array([0.0, 1.0]), r"astype\('int64'\).*regression"),
        (np.array(["cat", "dog"]), "np.unique"),
        (np.array([True, False]), r"astype\('int64'\)"),
    ],
)
def test_targets_that_can_be_meant_in_several_ways_are_asked_about(y: np.ndarray, told: str) -> None:
    with pytest.raises(DataError, match=told):
        decide(y)


@pytest.mark.parametrize(
    ("task", "y", "told"),
    [
        ("classification", np.array([0.5, 1.0]), "fractions"),
        ("classification", np.zeros((3, 2), int), r"expected int\[n\]"),
        ("multi-label", np.array([[0, 2]]), "values from 0 to 2"),
        ("sequence", np.full((2, 3), -1), "every entry is padding"),
        ("segmentation", np.zeros((2, 3), int), "expected int"),
        ("regression", np.array([1.0, np.nan]), "NaN or Inf"),
        ("regression", np.array(["1"]), "expected float"),
    ],
)
def test_targets_that_do_not_fit_are_refused(task: str, y: np.ndarray, told: str) -> None:
    with pytest.raises(DataError, match=told):
        prepared(task, y)


def test_a_loss_that_cannot_train_the_task_is_refused_and_a_default_replaced() -> None:
    default = "sparse-categorical-crossentropy"
    assert decided("regression", default, default) == "mse"
    assert decided("regression", "huber", default) == "huber"
    with pytest.raises(ConfigError, match="its losses are mse, mae, huber"):
        decided("regression", "binary-crossentropy", default)
    with pytest.raises(ConfigError, match="cannot train task 'multi-label'"):
        FitPlan(task="multi-label", loss="huber")


def test_shares_are_told_in_per_cent_and_others_are_not() -> None:
    assert told("segmentation", 0.5) == "50.00%"
    assert told("regression", -0.25) == "-0.2500"


def test_strata_of_one_number_are_its_tenths() -> None:
    y = np.random.default_rng(0).standard_normal((1000, 1)).astype(np.float32)
    assert np.bincount(strata_of(y)).tolist() == [100] * 10
    assert len(set(strata_of(np.zeros((50, 1), np.float32)).tolist())) == 1, "all alike"
    assert strata_of(np.arange(9, dtype=np.float32)).tolist() == [0] * 9, "too few to part"
