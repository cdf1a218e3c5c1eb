"""The best round's model is kept beside the last one, whatever the metric; and rounds that are not evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.kept import METRICS
from device_sim.report import page, read_runs
from device_sim.report.compare import paired
from device_sim.run.best import best_round, kept_models
from device_sim.run.finish import finish
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round, read_rounds, scores_of
from device_sim.run.loop import restore, simulate, stop_reason
from device_sim.run.progress import follow
from device_sim.run.summary import kept_told
from device_sim.sweep.results import score
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.errors import ConfigError, DivergedError, RunError
from fl_mobile.tensors import Tensors, weights_hash
from tests.device_sim.faulty_run import open_federation
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.report.made_runs import made_round, made_run, raw_rounds, write_lines
from tests.device_sim.run.test_going_on import go_on
from tests.device_sim.run.test_run import experiment, play

ON_DEVICES = ("evaluation.device-test-fraction=0.3", "evaluation.every=1")


def played_with_weights(path: Path, *changes: str) -> tuple[RunFolder, list[Round], list[Tensors]]:
    """Returns the rounds and the global model after each, read back from the checkpoints."""
    federation = numpy_federation(experiment(*changes))
    folder = create(path, federation.experiment)
    rounds, weights = [], []
    for done in simulate(federation, folder):
        rounds.append(done)
        weights.append(restore(federation, folder)[0].weights)
    return folder, rounds, weights


def same(a: Tensors, b: Tensors) -> bool:
    return all(np.array_equal(a[path], b[path]) for path in a)


@pytest.mark.parametrize("name", METRICS)
def test_the_best_model_is_that_of_the_best_round_by_every_metric(tmp_path: Path, name: str) -> None:
    changes = (*ON_DEVICES, f"output.keep-by={name}", "train.rounds=8", "server.learning-rate=0.6")
    folder, rounds, weights = played_with_weights(tmp_path / "run", *changes)
    metric = METRICS[name]
    values = [metric.of(done) for done in rounds]
    best = int((np.argmax if metric.larger_is_better else np.argmin)(values))
    for keep in ("last", "best"):
        wanted = experiment(*changes, f"output.keep={keep}")
        kept, beside = kept_models(wanted, folder, rounds, weights[-1])
        found = {model.round_num: model.weights for model in (kept, beside) if model}
        assert found.keys() == {best, 7}
        assert kept.round_num == (best if keep == "best" else 7)
        assert all(same(found[number], weights[number]) for number in found)
    assert len(list(folder.best.iterdir())) <= 2


def test_killed_between_a_new_best_and_its_checkpoint_the_earlier_best_is_still_there(tmp_path: Path) -> None:
    """Every round is a new best here; the last one's file and log line are there, its checkpoint is not."""
    federation = numpy_federation(experiment("output.keep-by=loss", "train.learning-rate=0.01", "train.rounds=5"))
    folder = create(tmp_path / "run", federation.experiment)
    for done in simulate(federation, folder):
        if done.round_num == 3:
            saved, third = folder.checkpoint.read_bytes(), restore(federation, folder)[0].weights
    assert sorted(path.name for path in folder.best.iterdir()) == ["3.npz", "4.npz"]
    folder.checkpoint.write_bytes(saved)
    shorter = numpy_federation(experiment("output.keep-by=loss", "train.learning-rate=0.01", "train.rounds=4"))
    rounds = list(simulate(shorter, folder))
    kept, beside = kept_models(federation.experiment, folder, rounds, third)
    assert (kept.round_num, beside) == (3, None)
    assert [path.name for path in folder.best.iterdir()] == ["3.npz"]


def test_rounds_before_the_model_is_as_small_as_it_shall_be_are_no_best(tmp_path: Path) -> None:
    pruned = experiment("train.pruning.sparsity=0.5", "train.pruning.end-round=4", "train.pruning.smallest-kernel=1")
    rounds = [replace(made_round(n, 0), accuracy=1 - n / 20) for n in range(8)]
    found = best_round(pruned, rounds)
    assert found is not None
    assert found.round_num == 4


def test_another_metric_on_a_run_whose_best_by_it_is_gone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    rounds, _ = play(path, "train.rounds=8", "server.learning-rate=0.6")
    by = {name: best_round(experiment(f"output.keep-by={name}"), rounds) for name in ("accuracy", "loss", "train-loss")}
    assert by["accuracy"] != by["train-loss"]
    with pytest.raises(RunError, match=r"output.keep-by 'train-loss'.*those of the best accuracy were"):
        go_on(path, "output.keep-by=train-loss", "train.rounds=9")
    go_on(path, "output.keep=best", "train.rounds=9")


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"x"), lambda p: p.write_bytes(b"")])
def test_a_best_model_that_is_damaged_is_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    changes = ("train.rounds=8", "server.learning-rate=0.6")
    folder, rounds, weights = played_with_weights(tmp_path / "run", *changes)
    best = best_round(experiment(*changes), rounds)
    assert best is not None
    damage(folder.best / f"{best.round_num}.npz")
    with pytest.raises(RunError, match=rf"best/{best.round_num}.npz: the weights of the best round"):
        kept_models(experiment(*changes), folder, rounds, weights[-1])


def test_keys_of_what_is_kept_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"unknown output\.keep 'bset'.*best"):
        experiment("output.keep=bset")
    with pytest.raises(ConfigError, match=r"unknown output\.keep-by.*device-p10"):
        experiment("output.keep-by=f1")
    with pytest.raises(ConfigError, match=r"evaluation\.every"):
        experiment("output.keep-by=device-p10")
    with pytest.raises(ConfigError, match=r"personal\.private"):
        experiment("output.keep=best", "personal.private=batch-norm", "output.recipes=[]")


# ---- evaluation.interval


def test_the_test_set_is_evaluated_every_so_many_rounds_and_after_the_last(tmp_path: Path) -> None:
    every, whole = play(tmp_path / "every", "train.rounds=8")
    some, same_hash = play(tmp_path / "some", "train.rounds=8", "evaluation.interval=3")
    assert whole == same_hash, "looking at the model does not change it"
    assert [r.round_num for r in some if r.accuracy is not None] == [2, 5, 7]
    assert [(r.accuracy, r.loss) for r in some if r.accuracy is not None] == [
        (every[n].accuracy, every[n].loss) for n in (2, 5, 7)
    ]
    assert read_rounds(RunFolder(tmp_path / "some")) == some
    with pytest.raises(ConfigError, match=r"evaluation\.interval must be above 0"):
        experiment("evaluation.interval=0")


def test_stop_rules_look_at_evaluated_rounds_only() -> None:
    losses = [1.0, None, 0.5, None, 0.6, None, 0.7]
    rounds = [
        replace(made_round(n, 0), loss=loss, accuracy=None if loss is None else 1 - loss)
        for n, loss in enumerate(losses)
    ]
    patient, target = experiment("stop.patience=4"), experiment("stop.target-accuracy=0.5")
    assert [bool(stop_reason(patient, rounds[:n])) for n in range(1, 8)] == [False] * 6 + [True]
    assert [bool(stop_reason(target, rounds[:n])) for n in range(1, 4)] == [False, False, True]


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_model_that_is_not_finite_is_noticed_in_rounds_without_evaluation(tmp_path: Path) -> None:
    federation = numpy_federation(experiment("evaluation.interval=5", "fleet.dropout-rate=0"))
    federation = replace(federation, algorithm=ALGORITHMS["fedavg"].build(learning_rate=1e39))  # no key allows that
    with pytest.raises(DivergedError, match=r"round 1: tensor 'out/.*' of the new global model.*learning-rate"):
        list(simulate(federation, create(tmp_path / "run", federation.experiment)))


def thinned(path: Path, interval: int) -> Path:
    """Takes the scores of all but every ``interval``-th round and the last out of a made run."""
    lines = raw_rounds(path)
    for line in lines[:-1]:
        if (line["round_num"] + 1) % interval:
            line["accuracy"] = line["loss"] = None
    write_lines(path / "rounds.jsonl", lines)
    return path


def test_every_reader_copes_with_rounds_that_were_not_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = thinned(made_run(tmp_path / "a", seed=1), 5), thinned(made_run(tmp_path / "b", seed=2), 4)
    runs = read_runs([a, b])
    html = page(runs)
    assert "nan" not in html.lower().replace("nanum", "")
    assert html.count("–") > 18, "rounds without a score have a dash in the table"
    line = paired(runs)[1]
    last = [scores_of(run.rounds)[-1].accuracy for run in runs]
    assert line.accuracy_points == pytest.approx(100 * (last[1] - last[0])), "round 12 alone was evaluated in both"
    assert json.dumps(score([runs[0].rounds], [runs[1].rounds]).accuracy, allow_nan=False)
    list(follow(runs[0].rounds, 12, 0, quiet=False))
    assert "test accuracy –" in capsys.readouterr().err
    assert all(math.isfinite(s.loss) for s in scores_of(runs[0].rounds))


def test_runs_that_were_never_evaluated_in_the_same_round_still_make_a_report(tmp_path: Path) -> None:
    a, b = made_run(tmp_path / "a", rounds=7), made_run(tmp_path / "b", rounds=8)
    runs = read_runs([thinned(a, 100), thinned(b, 100)])
    assert paired(runs)[1].accuracy_points is None
    assert page(runs)


def test_a_run_without_a_score_yet_has_no_report_and_says_why(tmp_path: Path) -> None:
    path = made_run(tmp_path / "run", finished=False)
    write_lines(path / "rounds.jsonl", [{**line, "accuracy": None, "loss": None} for line in raw_rounds(path)])
    with pytest.raises(RunError, match=r"none of its 12 rounds was evaluated yet, see evaluation\.interval"):
        read_runs([path])


def test_a_run_cannot_end_at_a_round_that_was_not_evaluated(tmp_path: Path) -> None:
    federation = numpy_federation(experiment("evaluation.interval=3"))
    folder = create(tmp_path / "run", federation.experiment)
    for done in simulate(federation, folder):
        if done.round_num == 3:
            break
    with pytest.raises(RunError, match="must be at least 5, got 4"):
        go_on(folder.path, "train.rounds=4")
    assert scores_of(go_on(folder.path, "train.rounds=5")[0])[-1].round_num == 4


@pytest.mark.parametrize("keep", ["last", "best"])
def test_finish_writes_both_models_and_says_which_is_which(tmp_path: Path, keep: str) -> None:
    changes = (f"output.keep={keep}", "train.rounds=8", "server.learning-rate=0.6", "evaluation.interval=2")
    folder, rounds, weights = played_with_weights(tmp_path / "run", *changes)
    federation = open_federation(experiment(*changes))
    best = max(scores_of(rounds), key=lambda s: s.accuracy)
    assert best.round_num < 7
    summary = finish(federation, folder, rounds, command="fl-mobile simulate", recipes=(), say=lambda line: None)
    other = "best" if keep == "last" else "last"
    files = {keep: folder.model, other: folder.path / f"model-{other}.keras"}
    for which, number in (("last", 7), ("best", best.round_num)):
        with np.load(files[which]) as found:
            assert same(dict(found), weights[number])
    kept = summary["kept"]
    assert (kept["round"], kept["beside"]["round"]) == ((7, best.round_num) if keep == "last" else (best.round_num, 7))
    assert kept["beside"]["file"] == f"model-{other}.keras"
    assert summary["accuracy"] == rounds[kept["round"]].accuracy
    hashes = {keep: summary["model"]["weights_sha256"], other: kept["beside"]["weights_sha256"]}
    assert hashes == {"last": weights_hash(weights[7]), "best": weights_hash(weights[best.round_num])}
    assert f"round {best.round_num + 1}" in kept_told(summary) or keep == "best"
