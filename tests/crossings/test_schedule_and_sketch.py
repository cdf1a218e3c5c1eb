"""Server schedules, means over rounds and sketches beside other features: stopped runs end at the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.errors import ConfigError
from fl_mobile.tensors import weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

FLEET = (
    *("data.devices=12", "train.cohort=5", "train.rounds=4", "fleet.link=mixed", "fleet.dropout-rate=0.1"),
    *("download.codec=q8", "output.recipes=[]"),
)
LATE = ("clock.mode=asynchronous", "clock.buffer=2")
TAIL = ("server.schedule=linear-tail", "server.averaging=last", "server.averaging-rounds=2")
MEAN = ("server.schedule=cosine", "server.averaging=exponential", "server.averaging-broadcast=true")
SKETCH, FORWARD = ("upload.codec=sketch:k=64",), ("upload.codec=sketch:k=64,bits=2", "download.mode=forward")
PRUNED = ("train.pruning.sparsity=0.5", "train.pruning.end-round=2", "train.pruning.smallest-kernel=1")
ROWS: dict[str, tuple[str, ...]] = {
    "forward, tail": (*FORWARD, *TAIL),
    "forward, median": (*FORWARD, "server.aggregation=median", "server.schedule=cosine"),
    "forward, fednova, private": (*FORWARD, "server.algorithm=fednova", "personal.private=*bias"),
    "forward, feedback, oort": (*FORWARD, "upload.memory=error-feedback", "selection.sampler=oort"),
    "forward, norm-bound": (*FORWARD, "server.aggregation=norm-bound"),
    "sketch, late, tail": (*SKETCH, *LATE, *TAIL),
    "sketch, late, mean": (*SKETCH, *LATE, *MEAN, "download.mode=delta"),
    "sketch, pruned, mean": (*SKETCH, *PRUNED, *MEAN, "download.mode=delta"),
    "sketch, cafe, clipped": (*SKETCH, "upload.memory=cafe", "server.clip-norm=0.5", "download.mode=delta"),
    "sketch, fedadam, ratio": ("upload.codec=sketch", "upload.target-ratio=12", "server.algorithm=fedadam", *MEAN),
    "auto, budget": ("upload.codec=auto", "upload.budget-bytes=140", *TAIL),
    "scaffold, tail": ("upload.codec=q8", "server.algorithm=scaffold", *TAIL),
    "feddyn, pruned": ("upload.codec=q8", "server.algorithm=feddyn", "server.schedule=cosine", *PRUNED),
    "fedavgm, mean": ("upload.codec=q8", "server.algorithm=fedavgm", *MEAN, "selection.over-selection=1.5"),
}


def opened(name: str) -> Federation:
    return numpy_federation(parse_experiment(PLAIN, [*FLEET, *ROWS[name]]))


@pytest.mark.parametrize("name", ROWS)
def test_a_run_that_stopped_after_its_second_round_ends_at_the_same_bytes(name: str, tmp_path: Path) -> None:
    ends = []
    for way, stops in (("whole", 0), ("stopped", 2)):
        folder = create(tmp_path / way, opened(name).experiment)
        for _ in zip(range(stops), simulate(opened(name), folder), strict=False):
            pass
        federation = opened(name)
        rounds = list(simulate(federation, folder))
        state = restore(federation, folder)[0]
        assert all(np.isfinite(value).all() for value in state.weights.values())
        counted = [(r.accepted, r.dropped, r.upload_bytes, r.download_bytes, r.weights_norm) for r in rounds]
        beside = {f"{kind}/{p}": v for kind, tensors in state.averages.items() for p, v in tensors.items()}
        kept = {p.name: p.read_bytes() for p in sorted(folder.memory.iterdir() if folder.memory.exists() else ())}
        ends.append((weights_hash(state.weights), weights_hash(state.model), weights_hash(beside), counted, kept))
    assert ends[0] == ends[1]
    assert sum(r.accepted for r in rounds) > 4


def test_a_sketch_larger_than_the_model_is_refused_before_round_1() -> None:
    experiment = parse_experiment(PLAIN, [*FLEET, "upload.codec=sketch:k=512"])
    with pytest.raises(ConfigError, match="512 numbers of a model that has 435 trainable parameters; lower k"):
        numpy_federation(experiment)
