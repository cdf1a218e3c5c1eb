"""Tensors that never travel: FedBN's batch norm, a head of each device's own, or any pattern of paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.experiment import experiment_hash
from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import create
from device_sim.run.loop import restore, simulate
from fl_mobile.client.private import private_paths
from fl_mobile.errors import ConfigError
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import TensorSpec
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.reference_fedavg import mix, train
from tests.device_sim.rounds.test_oracle import PLAIN

SPEC = {
    "conv/kernel": TensorSpec((3, 3, 1, 4)),
    "bn/gamma": TensorSpec((4,)),
    "bn/moving_mean": TensorSpec((4,), trainable=False),
    "out/kernel": TensorSpec((4, 2)),
    "out/bias": TensorSpec((2,)),
}
BIAS = ("personal.private=*/bias", "output.recipes=[]")


@pytest.mark.parametrize(
    ("private", "paths"),
    [
        ("none", []),
        ("batch-norm", ["bn/gamma", "bn/moving_mean"]),
        ("head", ["out/bias", "out/kernel"]),
        ("*/kernel", ["conv/kernel", "out/kernel"]),
        ("kernel", ["conv/kernel", "out/kernel"]),
        ("bn/*", ["bn/gamma", "bn/moving_mean"]),
    ],
)
def test_which_tensors_stay(private: str, paths: list[str]) -> None:
    assert sorted(private_paths(SPEC, private)) == paths


@pytest.mark.parametrize(("private", "told"), [("haed", "names no tensor.*head"), ("*", "nothing to train together")])
def test_mistakes_in_the_pattern(private: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        private_paths(SPEC, private)


def test_the_whole_pipeline_equals_a_loop_whose_devices_keep_their_bias(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, BIAS))
    run = create(tmp_path / "run", federation.experiment)
    rounds = list(simulate(federation, run))
    state, _ = restore(federation, run)
    samples, shards = federation.dataset.train, federation.data.shards  # type: ignore[attr-defined]
    x = samples.x.reshape(len(samples.y), -1) / 255.0
    kernel, biases = np.zeros((144, 3)), [np.zeros(3) for _ in shards]
    for round_num in range(5):
        new, total = np.zeros_like(kernel), 0
        for k in rng_for(0, round_num, "cohort").permutation(7)[:3]:
            seed = mix(seed_for(0, round_num, "train") + (int(k) + 1) * 0x9E3779B97F4A7C15)
            local, biases[k] = train(x[shards[k]], samples.y[shards[k]], kernel, biases[k], seed, 2, 4, 0.3)
            new += len(shards[k]) * local
            total += len(shards[k])
        kernel = new / total
    assert list(state.weights) == list(state.spec) == ["out/kernel"]
    assert len(experiment_hash(federation.experiment)) == 64
    np.testing.assert_allclose(state.weights["out/kernel"], kernel, atol=3e-6)
    for device, bias in enumerate(biases):
        kept = Shelf(run.memory).newest(f"private-{device}")
        np.testing.assert_allclose(kept["out/bias"] if kept else np.zeros(3), bias, atol=3e-6)
    assert rounds[0].upload_bytes == 3 * (44 + 4 * 432), "not a byte of the bias is sent"
    assert rounds[0].ratio == pytest.approx(4 * 432 / (44 + 4 * 432))


@pytest.mark.parametrize("change", ["clock.mode=synchronous", "clock.mode=asynchronous", "server.algorithm=scaffold"])
@pytest.mark.parametrize("cut", [1, 3])
def test_resumed_between_memory_and_checkpoint_it_ends_bit_identical(tmp_path: Path, cut: int, change: str) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, [*BIAS, change]))
    found = []
    for killed in (False, True):
        run, saved = create(tmp_path / f"run-{killed}", federation.experiment), b""
        for number, _ in enumerate(simulate(federation, run), 1):
            if killed and number == cut:
                saved = run.checkpoint.read_bytes()
            if killed and number == cut + 1:
                run.checkpoint.write_bytes(saved)
                break
        list(simulate(federation, run))
        kept = [Shelf(run.memory).newest(f"private-{d}") or {} for d in range(7)]
        found.append(
            [value.tobytes() for own in (restore(federation, run)[0].weights, *kept) for value in own.values()]
        )
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "told"), [("server.algorithm=fedprox", "no private tensors to pull to"), ("seed=0", "must be \\[\\]")]
)
def test_what_cannot_go_with_it(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_experiment("", ["personal.private=head", *(["output.recipes=[]"] if "server" in change else []), change])
