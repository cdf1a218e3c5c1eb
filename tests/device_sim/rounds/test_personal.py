"""Accuracy on single devices, before and after each has made the model its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.client_data.data import DealtData
from device_sim.client_data.held_out import SplitDevices
from device_sim.datasets.records import Samples
from device_sim.engines import Evaluation
from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.run.evaluation import distribution, federated_evaluation, sampled_devices
from device_sim.run.folder import create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import ConfigError
from fl_mobile.seeds import hashes, rng_for, seed_for
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.reference_drift import train
from tests.device_sim.rounds.test_drift import digits
from tests.device_sim.rounds.test_oracle import PLAIN

ON = "evaluation.device-test-fraction=0.25"


def play(folder: Path, federation: Federation) -> tuple[list[Round], Tensors, dict[str, Any]]:
    run = create(folder, federation.experiment)
    rounds = list(simulate(federation, run))
    state, _ = restore(federation, run)
    found = federated_evaluation(federation, Shelf(run.memory), state)
    assert found is not None
    return rounds, state.weights, found


@given(st.lists(st.integers(0, 3), max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_device_is_split_in_two_without_loss_and_as_stratified_as_can_be(
    labels: list[int], fraction: float, seed: int
) -> None:
    y = np.array(labels, np.int64)
    samples = Samples(np.arange(len(y) + 1, dtype=np.float32)[:, None], np.append(y, 0))
    data = DealtData(samples, (np.arange(len(y)), np.array([len(y)])))
    split, one = SplitDevices(data, seed, fraction), np.array([0])
    (x_train, y_train), (x_test, y_test) = split.examples(0), split.held_out(0)
    assert sorted([*x_train[:, 0], *x_test[:, 0]]) == list(range(len(y)))
    assert (len(y_train), len(y_test)) == (split.counts(one)[0], split.test_counts(one)[0])
    assert len(y_train) >= 1 or len(y) == 0
    assert len(y_test) >= 1 or len(y) <= 1
    for label in set(labels):
        assert abs((y_test == label).sum() - len(y_test) * labels.count(label) / len(y)) < 2


def test_another_seed_or_device_holds_out_others() -> None:
    samples = Samples(np.arange(80, dtype=np.float32)[:, None], np.zeros(80, np.int64))
    data = DealtData(samples, (np.arange(40), np.arange(40)))
    parts = [SplitDevices(data, seed, 0.2).held_out(device)[0].tobytes() for seed in (0, 1) for device in (0, 1)]
    assert len(set(parts)) == 4
    assert parts[0] == SplitDevices(data, 0, 0.2).held_out(0)[0].tobytes()


def test_the_distribution_counts_every_device_alike() -> None:
    scores = [Evaluation(accuracy, 0.0, 1000 if accuracy else 1) for accuracy in (0.0, *([0.5] * 20), *([1.0] * 19))]
    found = distribution(scores)
    assert found.accuracy == {
        "p10": 0.5,
        "p50": 0.5,
        "p90": 1.0,
        "worst_5_percent": 0.25,
        "mean": pytest.approx(29 / 40),
    }
    counts, edges = found.histogram["counts"], found.histogram["edges"]
    assert (counts[0], counts[10], counts[19], sum(counts)) == (1, 20, 19, 40)
    assert (edges[0], edges[10], edges[20], len(edges)) == (0.0, 0.5, 1.0, 21)


def test_the_sample_is_bounded_seeded_and_skips_devices_without_a_test_part() -> None:
    federation = numpy_federation(parse_experiment(PLAIN, [ON, "data.devices=80", "evaluation.devices=5"]))
    found = sampled_devices(federation)
    assert len(found) == 5
    assert found == sampled_devices(federation)
    assert max(found) < 10, "90 examples on 80 devices: only the first ten hold two"
    assert sampled_devices(numpy_federation(parse_experiment(PLAIN))) == []


def stacked(weights: Tensors) -> np.ndarray:
    return np.vstack([weights["out/kernel"], weights["out/bias"]])


def right(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    inputs = np.hstack([x.reshape(len(x), -1) / 255.0, np.ones((len(x), 1))])
    return float(np.mean((inputs @ w).argmax(axis=1) == y))


def test_fine_tuning_equals_a_loop_over_devices(tmp_path: Path) -> None:
    changes = [ON, "personal.method=fine-tune", "personal.epochs=3", "personal.learning-rate=0.2"]
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    _, weights, found = play(tmp_path / "run", federation)
    before, after = [], []
    for device in range(7):
        (x, y), test = federation.data.examples(device), federation.data.held_out(device)  # type: ignore[attr-defined]
        seed, flat = seed_for(0, device, "personalisation"), x.reshape(len(x), -1) / 255.0
        own, _ = train(flat, y, stacked(weights).astype(np.float64), seed, 3, 4, 0.2, 0.0, 0.0)
        before.append(right(stacked(weights), *test))
        after.append(right(own, *test))
    assert found["accuracy"]["mean"] == pytest.approx(np.mean(before))
    assert found["personalised"]["accuracy"]["mean"] == pytest.approx(np.mean(after))


def test_ditto_equals_a_loop_sends_nothing_more_and_trains_longer(tmp_path: Path) -> None:
    changes = [ON, "personal.method=ditto", "personal.epochs=1", "personal.mu=0.3"]
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    rounds, weights, _ = play(tmp_path / "run", federation)
    plain, same, _ = play(tmp_path / "plain", numpy_federation(parse_experiment(PLAIN, [ON])))
    assert stacked(weights).tobytes() == stacked(same).tobytes()
    for mine, other in zip(rounds, plain, strict=True):
        assert (mine.upload_bytes, mine.download_bytes) == (other.upload_bytes, other.download_bytes)
        assert mine.sim_seconds > other.sim_seconds
        assert mine.joules > other.joules
    w, own = np.zeros((145, 3)), {}
    for round_num in range(5):
        new, total = np.zeros_like(w), 0
        for k in rng_for(0, round_num, "cohort").permutation(7)[:3].tolist():
            x, y = federation.data.examples(k)
            flat, seed = x.reshape(len(x), -1) / 255.0, int(hashes(0, round_num, "train", index=np.array([k]))[0])
            new += len(y) * train(flat, y, w, seed, 2, 4, 0.3, 0.0, 0.0)[0]
            total += len(y)
            start = own.get(k, w)
            own[k] = train_from(flat, y, start, w, seed_for(seed, "ditto"), 0.3)
        w = new / total
    shelf = Shelf(tmp_path / "run" / "memory")
    for device, expected in own.items():
        np.testing.assert_allclose(stacked(shelf.newest(f"personal-{device}") or {}), expected, atol=5e-6)


def train_from(x, y, start, centre, seed, mu):  # type: ignore[no-untyped-def]
    """One epoch from ``start`` with the pull to ``centre``: μ(w − centre) = μ(w − start) + μ(start − centre)."""
    return train(x, y, start, seed, 1, 4, 0.3, mu * (start - centre), mu)[0]


@pytest.mark.parametrize("change", ["clock.mode=synchronous", "clock.mode=asynchronous"])
def test_ditto_resumed_between_memory_and_checkpoint_ends_bit_identical(tmp_path: Path, change: str) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, [ON, "personal.method=ditto", change]))
    found = []
    for killed in (False, True):
        run, saved = create(tmp_path / f"run-{killed}", federation.experiment), b""
        for number, _ in enumerate(simulate(federation, run), 1):
            if killed and number == 2:
                saved = run.checkpoint.read_bytes()
            if killed and number == 3:
                run.checkpoint.write_bytes(saved)
                break
        list(simulate(federation, run))
        found.append([stacked(own).tobytes() for d in range(7) if (own := Shelf(run.memory).newest(f"personal-{d}"))])
    assert found[0] == found[1] != []


def test_rounds_tell_of_devices_as_often_as_asked(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, [ON, "evaluation.every=2"]))
    rounds, _, found = play(tmp_path / "run", federation)
    assert [bool(r.device_accuracy) for r in rounds] == [False, True, False, True, False]
    last = numpy_federation(parse_experiment(PLAIN, [ON, "evaluation.every=5"]))
    assert play(tmp_path / "last", last)[0][-1].device_accuracy == found["accuracy"]


LESS = ("train.rounds=8", "train.epochs=3", "train.cohort=10")


@pytest.mark.parametrize(("method", "epochs"), [("fine-tune", 5), ("ditto", 3)])
def test_under_label_skew_it_raises_the_mean_and_the_worst_devices(tmp_path: Path, method: str, epochs: int) -> None:
    """Over seeds 0 to 2 the mean rose by 0.18 to 0.26 and the worst twentieth by 0.27 to 0.91."""
    changes = [*LESS, "evaluation.device-test-fraction=0.3", f"personal.method={method}", f"personal.epochs={epochs}"]
    _, _, found = play(tmp_path / "run", digits("seed=1", *changes))
    before, after = found["accuracy"], found["personalised"]["accuracy"]
    assert after["mean"] > before["mean"] + 0.1
    assert after["worst_5_percent"] > before["worst_5_percent"] + 0.15


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["personal.method=fine-tune"], "device-test-fraction above 0"),
        (["personal.method=finetune"], "fine-tune"),
        ([ON, "personal.method=ditto", "personal.private=head", "output.recipes=[]"], "ditto"),
        ([ON, "personal.method=ditto", "engine.name=litert"], "engine.name auto or keras"),
        ([ON, "personal.method=head", "engine.name=litert"], "engine.name auto or keras"),
        ([ON, "personal.mu=0.0"], "above 0"),
        (["evaluation.device-test-fraction=1.0"], r"\[0, 1\)"),
        (["evaluation.every=3"], "device-test-fraction above 0"),
        (["evaluation.devices=0"], "above 0"),
    ],
)
def test_mistakes(changes: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_experiment("", changes)
