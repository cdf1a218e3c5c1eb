"""Laws of every attack: attackers are clients, they alone send something else, and what they do is seeded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.attacks import ATTACKS
from device_sim.attacks.attackers import Attackers, open_attackers
from device_sim.attacks.collusion import farthest_unseen, largest_z, little
from device_sim.attacks.garbage import garbled
from device_sim.datasets.records import Samples, make_dataset
from device_sim.experiment.attack import AttackPlan
from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.rounds.crew import gather
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.step import open_step
from device_sim.rounds.trip import travel
from device_sim.run.backdoor import backdoor_success
from device_sim.run.folder import create
from device_sim.run.log import read_rounds
from device_sim.run.loop import restore, simulate
from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError, WireError
from fl_mobile.records import ServerState
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import TensorSpec, global_norm, weights_hash
from tests.device_sim.numpy_engine import numpy_federation, stripes
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.samples import philox

FLEET = ("data.devices=10", "train.cohort=6", "train.rounds=4", "attack.share=0.3")
NAMES = [name for name in ATTACKS if name != "none"]
KNOWING = ["alie", "ipm", "min-max"]


def experiment_of(*changes):
    return parse_experiment(PLAIN, [*FLEET, *changes])


def play(path: Path, *changes):
    federation = numpy_federation(experiment_of(*changes))
    folder = create(path, federation.experiment)
    return federation, list(simulate(federation, folder)), restore(federation, folder)[0].weights


def answers(path: Path, *changes):
    """Returns client → its answer in round 0, where everybody is asked."""
    federation = numpy_federation(parse_experiment(PLAIN, ["data.devices=10", "train.cohort=10", *changes]))
    memory = FleetMemory(Shelf(path / "memory"))
    state = federation.algorithm.init(federation.engine.initial, federation.engine.spec)
    crew, _ = gather(federation, memory, round_num=0, wanted=10, draw=0, now=0.0, under_way=np.zeros(0, np.int64))
    trained = travel(open_step(federation, memory, state, path / "updates"), crew, fold=True).trained
    assert trained.clients == crew.devices.index.tolist()
    return federation, dict(zip(trained.clients, trained.answers, strict=True)), trained.folded


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("codec", ["none", "ecsq"])
def test_attackers_alone_send_something_else(name, codec, tmp_path):
    _, honest, _ = answers(tmp_path / "honest", f"upload.codec={codec}")
    federation, found, folded = answers(tmp_path / "attacked", f"attack.name={name}", f"upload.codec={codec}")
    malicious = set(np.flatnonzero(federation.attackers.malicious).tolist())
    assert len(malicious) == 2
    assert {client for client in honest if honest[client].packet != found[client].packet} == malicious
    assert (folded is None) == (name in KNOWING)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_run_goes_on_counts_them_and_is_the_same_twice(name, mode, tmp_path):
    changes = (f"attack.name={name}", f"clock.mode={mode}", "server.clip-norm=1.0")
    _, rounds, weights = play(tmp_path / "a", *changes)
    _, again, same = play(tmp_path / "b", *changes)
    assert weights_hash(weights) == weights_hash(same)
    assert [r.malicious for r in rounds] == [r.malicious for r in again]
    counts = {key: sum(r.malicious.get(key, 0) for r in rounds) for key in ("asked", "accepted", "refused")}
    assert counts["asked"] >= counts["accepted"] + counts["refused"] > 0
    assert (counts["refused"] > 0) == (name == "garbage")
    assert all((r.backdoor is None) == (name != "backdoor") for r in rounds)
    assert sum(sum(r.dropped.values()) for r in rounds) >= counts["refused"]


@pytest.mark.parametrize("name", ["alie", "backdoor", "garbage"])
def test_a_killed_run_ends_at_the_same_bytes(name, tmp_path):
    changes = (f"attack.name={name}", "server.clip-norm=1.0")
    _, _, weights = play(tmp_path / "whole", *changes)
    federation = numpy_federation(experiment_of(*changes))
    folder = create(tmp_path / "killed", federation.experiment)
    next(simulate(federation, folder))
    rounds = list(simulate(numpy_federation(experiment_of(*changes)), folder))
    assert weights_hash(restore(federation, folder)[0].weights) == weights_hash(weights)
    assert rounds == read_rounds(folder)


def test_who_attacks_hangs_on_seed_and_share_alone():
    found = [
        numpy_federation(experiment_of(*changes)).attackers.malicious.tolist()
        for changes in (
            ["attack.name=alie"],
            ["attack.name=backdoor", "train.cohort=2"],
            ["attack.name=garbage", "selection.sampler=poisson", "clock.mode=asynchronous"],
        )
    ]
    assert found[0] == found[1] == found[2]
    assert sum(found[0]) == 3
    other = numpy_federation(experiment_of("attack.name=alie", "seed=1")).attackers.malicious.tolist()
    assert other != found[0]
    fewer = numpy_federation(experiment_of("attack.name=alie", "attack.share=0.1")).attackers.malicious
    assert sum(fewer) == 1
    assert found[0][int(np.flatnonzero(fewer)[0])]  # one more attacker leaves the others attackers
    assert numpy_federation(parse_experiment(PLAIN)).attackers is None


@pytest.mark.parametrize("share", [0.04, 0.96])
def test_a_share_that_is_nobody_or_everybody_is_refused(share):
    with pytest.raises(ConfigError, match=r"attack\.share .* of 10 devices is (nobody|everybody)"):
        numpy_federation(experiment_of("attack.name=ipm", f"attack.share={share}"))


def test_a_share_of_nobody_who_attacks_is_idle():
    with pytest.raises(ConfigError, match=r"attack\.share does nothing with attack\.name 'none'"):
        experiment_of()
    assert "[attack]" in to_toml(experiment_of("attack.name=ipm", "attack.strength=3"))
    with pytest.raises(ConfigError, match=r"strength.*read with ipm"):
        experiment_of("attack.name=alie", "attack.strength=3")


def test_robust_rules_survive_what_ruins_the_mean(tmp_path):
    changes = ("train.rounds=12", "train.cohort=10", "attack.name=sign-flip")
    _, mean, _ = play(tmp_path / "mean", *changes)
    assert mean[-1].accuracy < 0.7
    for rule in ("norm-bound", "median", "multi-krum", "centered-clipping"):
        _, robust, _ = play(tmp_path / rule, *changes, f"server.aggregation={rule}")
        assert robust[-1].accuracy > 0.9, rule


def test_only_updates_that_were_asked_for_are_written(tmp_path):
    answers(tmp_path, "attack.name=alie", "output.keep-updates=2")
    assert len(list((tmp_path / "updates").glob("round-*.npz"))) == 2


def test_a_liar_about_counts_is_clamped(tmp_path):
    federation, found, folded = answers(tmp_path, "attack.name=count-liar", "server.max-examples=11")
    layout = wire.Layout(federation.spec, federation.upload)
    said = {client: layout.header(made.packet).num_examples for client, made in found.items()}
    for client, count in said.items():
        assert count == (2**30 if federation.attackers.malicious[client] else 9)
    assert folded.total.weight == 8 * 9 + 2 * 11


def test_updates_are_as_long_as_they_say(tmp_path):
    _, honest, _ = answers(tmp_path / "honest")
    for name in ("sign-flip", "gaussian"):
        federation, found, _ = answers(tmp_path / name, f"attack.name={name}", "attack.scale=5")
        layout = wire.Layout(federation.spec, federation.upload)
        for client in np.flatnonzero(federation.attackers.malicious).tolist():
            sent, was = (layout.unpack(each[client].packet).tensors for each in (found, honest))
            assert global_norm(sent) == pytest.approx(5 * global_norm(was), rel=0.15)
            if name == "sign-flip":
                assert np.allclose(sent["out/kernel"], -5 * was["out/kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", KNOWING)
def test_who_knows_the_others_uses_what_they_trained_and_nothing_else(name, tmp_path):
    federation, found, _ = answers(tmp_path / "attacked", f"attack.name={name}")
    _, honest, _ = answers(tmp_path / "honest")
    layout, lying = wire.Layout(federation.spec, federation.upload), federation.attackers.malicious
    rows = np.array(
        [
            np.concatenate([layout.unpack(made.packet).tensors[p].ravel() for p in federation.spec])
            for client, made in honest.items()
            if not lying[client]
        ]
    ).astype(np.float64)
    expected = federation.attackers.attack.collude(rows, 2)
    for client in np.flatnonzero(lying).tolist():
        sent = layout.unpack(found[client].packet).tensors
        assert np.allclose(np.concatenate([sent[p].ravel() for p in federation.spec]), expected, rtol=1e-4, atol=1e-7)


def test_where_nobody_honest_is_asked_they_do_as_they_were_asked(tmp_path):
    few = ("data.devices=4", "train.cohort=1", "train.rounds=6")
    found = []
    for changes in (few, (*few, "attack.name=ipm", "attack.share=0.75")):
        federation = numpy_federation(parse_experiment(PLAIN, changes))
        folder = create(tmp_path / str(len(found)), federation.experiment)
        list(simulate(federation, folder))
        found.append(weights_hash(restore(federation, folder)[0].weights))
    assert found[0] == found[1]


@pytest.mark.parametrize("codec", ["none", "q8+deflate", "topk:0.1+q8", "ecsq", "qsgd:16", "eden:1"])
def test_whatever_garbage_is_sent_the_server_says_wire_error_or_takes_numbers(codec):
    spec = {"k": TensorSpec((40, 30)), "b": TensorSpec((30,)), "m": TensorSpec((30,), trainable=False)}
    layout, rng = wire.Layout(spec, parse_codec(codec)), philox(0)
    delta = {path: rng.normal(size=t.shape).astype(np.float32) for path, t in spec.items()}
    packet = layout.pack(wire.Header(wire.UPDATE, 0, 0, 5, 0.5), delta, rng)
    reasons = set()
    for seed in range(200):
        try:
            assert all(np.isfinite(v).all() for v in layout.unpack(garbled(packet, philox(seed))).tensors.values())
        except WireError as error:
            reasons.add(error.reason)
    assert {"checksum", "magic"} <= reasons


@given(seed=st.integers(0, 2**32), n=st.integers(2, 20), scale=st.floats(1e-3, 1e3))
def test_min_max_goes_as_far_as_it_can_unseen(seed, n, scale):
    honest = philox(seed).normal(size=(n, 5)) * scale
    forged = farthest_unseen(honest, 3)
    largest = max(np.linalg.norm(a - b) for a in honest for b in honest)
    assert max(np.linalg.norm(forged - one) for one in honest) <= largest * (1 + 1e-9)
    further = forged + 1e-3 * (forged - honest.mean(axis=0))
    assert max(np.linalg.norm(further - one) for one in honest) > largest


def test_min_max_of_equal_updates_is_that_update():
    assert np.allclose(farthest_unseen(np.ones((4, 3)), 2), 1)


@pytest.mark.parametrize(("n", "liars"), [(50, 10), (50, 12), (51, 24), (20, 4)])
def test_a_little_leaves_as_many_honest_clients_farther_out_as_a_majority_needs(n, liars):
    """Baruch et al. 2019: s = ⌊n/2 + 1⌋ − f honest values must be beyond μ − zσ."""
    supporters = math.floor(n / 2 + 1) - liars
    expected = (n - liars) * (1 - NormalDist().cdf(largest_z(n - liars, liars)))
    assert expected == pytest.approx(supporters, abs=1e-6) or largest_z(n - liars, liars) == 0
    honest = philox(3).normal(size=(n - liars, 2000))
    sent = little(honest, liars, 0.0)
    assert np.allclose(sent, honest.mean(axis=0) - largest_z(n - liars, liars) * honest.std(axis=0))


def test_a_backdoor_stamps_pictures_and_is_measured(tmp_path):
    federation, rounds, _ = play(
        tmp_path / "attacked",
        "attack.name=backdoor",
        "attack.target=1",
        "attack.poisoned=1",
        "attack.boost=3",
        "train.rounds=15",
        "train.cohort=10",
    )
    attackers = federation.attackers
    client = int(np.flatnonzero(attackers.malicious)[0])
    x, y = federation.data.examples(client)
    poisoned, labels = attackers.examples(client, x, y, seed=5)
    assert (labels == 1).all()
    assert (poisoned[:, -1, -1] == 255).all()
    assert np.array_equal(poisoned[:, :-1], x[:, :-1])
    honest = int(np.flatnonzero(~attackers.malicious)[0])
    assert attackers.examples(honest, x, y, seed=5)[0] is x
    assert rounds[-1].backdoor > 0.5
    assert rounds[-1].accuracy > 0.9
    untouched, _, weights = play(tmp_path / "untouched", "attack.name=garbage", "train.rounds=15", "train.cohort=10")
    state = ServerState(15, weights, federation.spec)
    assert backdoor_success(replace(untouched, attackers=attackers), state) < 0.2


def test_a_backdoor_needs_pictures_and_a_class_that_there_is():
    flat = make_dataset("flat", *[Samples(np.zeros((9, 3), np.float32), np.arange(9) % 3)] * 2, tuple("abc"), source="")
    plan = parse_experiment("", ["attack.name=backdoor", "attack.target=2"]).attack
    with pytest.raises(ConfigError, match=r"attack\.name backdoor stamps pictures"):
        open_attackers(plan, 0, 10, flat)
    with pytest.raises(ConfigError, match=r"attack\.target is class 3, and the data has classes 0 to 2"):
        open_attackers(parse_experiment("", ["attack.name=backdoor", "attack.target=3"]).attack, 0, 10, stripes())
    assert isinstance(open_attackers(plan, 0, 10, stripes()), Attackers)
    assert open_attackers(AttackPlan(), 0, 10, flat) is None
