"""State between rounds: error feedback, CAFe, delta download, rate control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.synchronous import play_synchronously
from device_sim.run.folder import create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import ConfigError, RunError
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import Tensors
from tests.device_sim.numpy_engine import NumpyTrainer, numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN


def play(path: Path, *changes: str) -> tuple[list[Round], Tensors]:
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    folder = create(path, federation.experiment)
    return list(simulate(federation, folder)), restore(federation, folder)[0].weights


def distance(a: Tensors, b: Tensors) -> float:
    return float(np.linalg.norm(a["out/kernel"] - b["out/kernel"]) / np.linalg.norm(b["out/kernel"]))


def test_error_feedback_and_cafe_bring_a_biased_codec_nearer_to_the_exact_run(tmp_path: Path) -> None:
    """All devices every round, so no residual grows stale; a client keeps at least half of what top-k left out."""
    common = ("train.cohort=7", "train.rounds=30")
    _, exact = play(tmp_path / "exact", *common)
    found = {}
    for memory in ("none", "error-feedback", "cafe"):
        changes = (*common, "upload.codec=flat+topk:0.05", f"upload.memory={memory}")
        found[memory] = distance(play(tmp_path / memory, *changes)[1], exact)
    assert found["error-feedback"] < 0.6 * found["none"]
    assert found["cafe"] < 0.95 * found["none"]


@pytest.mark.parametrize("memory", ["none", "error-feedback", "cafe"])
def test_memory_changes_nothing_when_the_codec_is_exact(tmp_path: Path, memory: str) -> None:
    _, exact = play(tmp_path / "exact")
    _, found = play(tmp_path / "run", f"upload.memory={memory}")
    assert distance(found, exact) < 1e-5


def test_a_lost_upload_leaves_the_residual_as_it_was(tmp_path: Path) -> None:
    """As if the client had not been asked: what it trained on an old model must not be sent on top of the next."""
    changes = ("fleet.link=3g", "upload.codec=flat+topk:0.05", "upload.memory=error-feedback", "train.cohort=7")
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    memory = FleetMemory(Shelf(tmp_path))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    lost = 0
    for _ in range(60):
        before = {d: memory.client_state(d).residual for d in range(7)}
        state, report, traffic = play_synchronously(federation, memory, state, tmp_path / "updates")
        outcome = dict(zip(traffic.columns["device"], traffic.columns["outcome"], strict=True))
        for client in range(7):
            after = memory.client_state(client).residual
            new = memory.shelf.get_exactly(f"residual-{client}", report.round_num)
            assert (new is not None) == (outcome.get(client) == "accepted")
            if outcome.get(client) == "lost":
                lost += 1
                assert (after is None) == (before[client] is None)
                assert after is None or all(np.array_equal(after[p], before[client][p]) for p in after)  # type: ignore[index]
            elif new is not None:
                assert np.count_nonzero(new["out/kernel"]) / 432 == pytest.approx(0.95, abs=0.01)
        if lost:
            break
    assert lost


def test_cafe_pays_for_its_broadcast(tmp_path: Path) -> None:
    plain, _ = play(tmp_path / "plain", "upload.codec=ecsq")
    cafe, _ = play(tmp_path / "cafe", "upload.codec=ecsq", "upload.memory=cafe")
    assert cafe[0].download_bytes == plain[0].download_bytes
    assert all(c.download_bytes > p.download_bytes for c, p in zip(cafe[1:], plain[1:], strict=True))


def test_delta_download_lands_every_device_on_the_same_model_and_costs_less(tmp_path: Path) -> None:
    """Devices skip rounds at random; each packet is decoded and compared inside `play_round`."""
    long = ("train.rounds=20", "data.devices=9")
    full, exact = play(tmp_path / "full", *long)
    delta, near = play(tmp_path / "delta", *long, "download.mode=delta", "download.step=0.1")
    assert sum(r.download_bytes for r in delta) < 0.7 * sum(r.download_bytes for r in full)
    assert distance(near, exact) < 0.05


def test_a_device_that_is_up_to_date_downloads_a_few_bytes(tmp_path: Path) -> None:
    changes = ("train.cohort=7", "download.mode=delta", "fleet.link=3g")
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    memory = FleetMemory(Shelf(tmp_path))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    _, _, traffic = play_synchronously(federation, memory, state, tmp_path)
    assert traffic.download_bytes == 7 * 45, "version 0 is in the app already"


@pytest.mark.parametrize("budget", [120, 250])
def test_rate_control_meets_its_budget_from_any_first_step(tmp_path: Path, budget: int) -> None:
    for step in ("0.1", "30"):
        changes = ("train.rounds=25", f"upload.codec=ecsq:step={step}", f"upload.budget-bytes={budget}")
        rounds, _ = play(tmp_path / f"run-{step}", *changes)
        mean = np.mean([r.upload_bytes / r.uploads for r in rounds[10:]])
        assert mean == pytest.approx(budget, rel=0.1)


def test_target_ratio_is_a_budget_in_other_words(tmp_path: Path) -> None:
    rounds, _ = play(tmp_path / "run", "train.rounds=25", "upload.codec=ecsq", "upload.target-ratio=4")
    assert np.mean([r.ratio for r in rounds[10:] if r.ratio]) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["upload.memory=perfect"], "error-feedback"),
        (["upload.target-ratio=10", "upload.budget-bytes=1000"], "not both"),
        (["upload.target-ratio=10", "upload.codec=q8"], "use codec ecsq"),
        (["upload.target-ratio=-1"], "≥ 0"),
        (["download.mode=half"], "full, delta or forward"),
        (["download.step=0.0"], "above 0"),
    ],
)
def test_mistakes(changes: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_experiment("", changes)


def test_a_budget_below_the_overhead_is_refused() -> None:
    federation = numpy_federation(parse_experiment("", ["upload.codec=ecsq", "upload.budget-bytes=10"]))
    with pytest.raises(ConfigError, match="64 bytes"):
        _ = federation.rules


def test_shelf_forgets_rewinds_and_refuses_damage(tmp_path: Path) -> None:
    shelf, weights = Shelf(tmp_path), NumpyTrainer(4, 2).initial
    for round_num in range(5):
        shelf.put("x", round_num, {p: v + round_num for p, v in weights.items()})
    newest = shelf.get("x", before=4)
    assert newest is not None
    assert newest["out/bias"][0] == 3
    assert list(newest) == list(weights)
    shelf.forget("x", before=4, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.3.npz", "x.4.npz"]
    shelf.rewind(4)
    assert shelf.get_exactly("x", 4) is None
    assert shelf.get("y", before=9) is None
    shelf.put("nothing", 0, {})
    assert shelf.get("nothing", before=1) == {}
    (tmp_path / "x.3.npz").write_bytes(b"no")
    with pytest.raises(RunError, match="damaged"):
        shelf.get("x", before=9)
