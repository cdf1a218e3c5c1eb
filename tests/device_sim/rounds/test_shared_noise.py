"""Runs in which devices add noise in shares under masks: what is counted, kept, said, and when nothing is released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.experiment.toml import parse_experiment
from device_sim.federation.federation import Federation
from device_sim.rounds.memory import FleetMemory
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round
from device_sim.run.loop import restore, simulate, stop_reason
from device_sim.run.privacy import FORECAST, privacy_of, privacy_told
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError
from fl_mobile.privacy import shares
from fl_mobile.privacy.accounting import curve
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tensors import global_norm, weights_hash
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN
from tests.fl_mobile.secure_sum.parties import make_free

SHARED = (
    *("data.devices=30", "train.cohort=10", "train.rounds=5", "output.recipes=[]", "upload.codec=sketch:k=128"),
    *("masks.group=20", "privacy.mode=distributed", "privacy.noise-multiplier=2", "privacy.clip-norm=0.5"),
)
REPEATED = (*SHARED, "privacy.reproducible=true")


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch) -> None:
    make_free(monkeypatch)


def played(path: Path, *changes: str) -> tuple[Federation, RunFolder, list[Round]]:
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    folder = create(path, federation.experiment)
    return federation, folder, list(simulate(federation, folder))


def final(federation: Federation, folder: RunFolder) -> str:
    return weights_hash(restore(federation, folder)[0].weights)


def test_the_device_that_answered_most_often_is_what_the_ledger_says(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", *REPEATED)
    memory = FleetMemory(Shelf(folder.memory))
    state, _ = restore(federation, folder, memory)
    most = memory.answers.largest
    assert 1 < most <= 5
    assert memory.answers.get(np.arange(30)).sum() == sum(r.uploads for r in rounds)
    assert federation.claim is not None
    assert federation.claim.beside == shares.beside(128, 10)
    assert rounds[-1].privacy["answers"] == most
    assert rounds[-1].privacy["epsilon"] == pytest.approx(curve(federation.claim, [most])[0][0])
    assert rounds[-1].privacy["epsilon"] == rounds[-1].privacy["epsilon_unamplified"]
    assert state.privacy is None, "the server holds no key of the noise"
    told = privacy_told(privacy_of(federation, rounds))
    for word in ("(distributed)", "ε = ", "δ = ", "zeros", "the server", "discrete Gaussians", FORECAST):
        assert word in told
    assert all(r.train_loss is None for r in rounds)


@pytest.mark.parametrize("group", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_the_noise_is_as_large_as_is_said_in_every_group(tmp_path: Path, group: int) -> None:
    """The server reads the sum of every group: each has all of the noise, and a mean over g groups √g times that."""
    changes = ("privacy.noise-multiplier=20", "train.rounds=1", f"masks.group={group}", "masks.dropouts=0.2")
    federation, _, rounds = played(tmp_path / "run", *REPEATED, *changes)
    noise, upload = federation.share_noise, federation.upload
    assert noise is not None
    assert isinstance(upload, Sketch)
    groups, members = (1, 10) if group == 20 else (2, 5)
    assert (noise.group, noise.least, rounds[0].accepted) == (min(group, 10), 8 if groups == 1 else 4, 10)
    each = noise.share(noise.least) * (members * groups) ** 0.5 * noise.step / 10
    size = sum(t.size for t in federation.spec.values())
    assert rounds[0].weights_norm == pytest.approx(each * size**0.5, rel=0.3)
    assert each >= 20 * 0.5 * groups**0.5 / 10, "at least what is claimed"
    assert global_norm(federation.initial) < rounds[0].weights_norm


def test_fields_follow_from_clip_and_noise_and_a_given_step_is_refused(tmp_path: Path) -> None:
    federation = numpy_federation(parse_experiment(PLAIN, REPEATED))
    noise = federation.share_noise
    assert noise is not None
    assert federation.upload == noise.fields(Sketch(128, seed=federation.upload.seed))  # type: ignore[attr-defined]
    assert not federation.rules.moves_step
    for codec in ("sketch:k=128,width=9,step=0.1", "linear:clip=0.1,devices=20", "ecsq"):
        with pytest.raises(ConfigError, match=r"privacy\.mode 'distributed'"):
            parse_experiment(PLAIN, (*REPEATED, f"upload.codec={codec}"))
    with pytest.raises(ConfigError, match=r"privacy\.sampling does nothing"):
        parse_experiment(PLAIN, (*REPEATED, "privacy.sampling=fixed-size"))


def test_a_run_that_was_cut_goes_on_with_the_same_secrets(tmp_path: Path) -> None:
    again = numpy_federation(parse_experiment(PLAIN, SHARED))
    folder = create(tmp_path / "cut", again.experiment)
    rounds = simulate(again, folder)
    next(rounds)
    rounds.close()
    memory = FleetMemory(Shelf(folder.memory))
    restore(again, folder, memory)
    secret = memory.secret
    assert folder.checkpoint.stat().st_mode & 0o077 == 0, "others can read the devices' secret"
    list(simulate(again, folder))
    restore(again, folder, memory)
    assert len(secret) == 32
    assert memory.secret == secret
    (one, two) = (played(tmp_path / str(n), *REPEATED) for n in range(2))
    assert final(*one[:2]) == final(*two[:2])
    other = played(tmp_path / "other", *SHARED)
    assert final(*other[:2]) != final(again, folder), "two runs drew from one secret"


def test_a_run_stops_before_a_device_would_spend_more(tmp_path: Path) -> None:
    federation, _, rounds = played(tmp_path / "run", *REPEATED, "privacy.max-epsilon=2")
    assert federation.ledger is not None
    assert federation.share_noise is not None
    answers = federation.share_noise.answers
    assert federation.ledger.after(answers).epsilon <= 2 < federation.ledger.after(answers + 1).epsilon
    assert rounds[-1].privacy["answers"] <= answers
    assert "privacy.max-epsilon" in stop_reason(federation.experiment, rounds)
    with pytest.raises(ConfigError, match="one answer alone spends"):
        played(tmp_path / "none", *REPEATED, "privacy.max-epsilon=0.01")


@pytest.mark.slow
def test_a_target_is_solved_for_the_noise() -> None:
    target = ("privacy.noise-multiplier=0", "privacy.target-epsilon=3")
    solved = numpy_federation(parse_experiment(PLAIN, (*REPEATED, *target)))
    assert solved.ledger is not None
    assert 2.9 < solved.ledger.after(5).epsilon <= 3


def test_a_sum_of_too_few_is_not_released_and_those_who_answered_are_charged(tmp_path: Path) -> None:
    federation, folder, rounds = played(tmp_path / "run", *REPEATED, "masks.dropouts=0", "fleet.dropout-rate=0.3")
    assert [r.accepted for r in rounds] == [0, 0, 0]
    assert rounds[-1].privacy["answers"] >= 1
    assert rounds[-1].privacy["epsilon"] > 0
    assert final(federation, folder) == weights_hash(federation.initial)
    assert "3 rounds in a row" in stop_reason(federation.experiment, rounds)
