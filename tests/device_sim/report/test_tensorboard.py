"""The event file read back by TensorBoard itself."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from device_sim.report.tensorboard import FILE, FOLDER, SCALARS, recorded
from device_sim.run.log import Round
from tests.device_sim.report.made_runs import made_round

pytestmark = pytest.mark.tf


def played(count: int) -> list[Round]:
    return [made_round(n, seed=0) for n in range(count)]


def read_back(run: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Returns tag → (step, wall time, value) as TensorBoard's backend reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / FOLDER), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    assert not tags["tensors"]
    return {tag: [(e.step, e.wall_time, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"]}


def test_tensorboard_reads_every_value_back(tmp_path: Path) -> None:
    rounds = played(12)
    assert list(recorded(rounds, tmp_path)) == rounds
    found = read_back(tmp_path)
    assert found.keys() == SCALARS.keys()
    for tag, value_of in SCALARS.items():
        told = [(r, value_of(r)) for r in rounds]
        meant = [(r.round_num + 1, r.sim_seconds, np.float32(v)) for r, v in told if v is not None]
        assert found[tag] == meant
    assert len(found["traffic/ratio"]) == 11, "round 1 sent nothing, so it has no ratio"


def test_a_killed_run_that_goes_on_has_each_round_once_and_the_same_bytes(tmp_path: Path) -> None:
    list(recorded(played(12), tmp_path / "straight"))
    killed = recorded(played(7), tmp_path / "killed")
    list(islice(killed, 5))
    whole = (tmp_path / "killed" / FOLDER / FILE).read_bytes()
    assert [step for step, _, _ in read_back(tmp_path / "killed")["model/loss"]] == [1, 2, 3, 4, 5], "on disk at once"
    killed.close()
    (tmp_path / "killed" / FOLDER / FILE).write_bytes(whole[:-3])
    list(recorded(played(12), tmp_path / "killed"))
    straight, resumed = ((tmp_path / name / FOLDER / FILE).read_bytes() for name in ("straight", "killed"))
    assert resumed == straight
    assert [path.name for path in (tmp_path / "killed" / FOLDER).iterdir()] == [FILE]


def test_a_round_costs_the_same_bytes_however_many_there_were(tmp_path: Path) -> None:
    alike = [replace(made_round(0, seed=0), round_num=n) for n in range(300, 400)]
    sizes = [(tmp_path / FOLDER / FILE).stat().st_size for _ in recorded(alike, tmp_path)]
    assert len(set(np.diff(sizes))) == 1
    assert sizes[1] - sizes[0] < 500


def test_a_full_disk_is_the_system_s_error_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        list(recorded(played(3), tmp_path))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / FOLDER / FILE)


def test_a_folder_that_cannot_be_written_is_the_system_s_error(tmp_path: Path) -> None:
    (tmp_path / FOLDER / FILE).mkdir(parents=True)
    with pytest.raises(OSError, match=FILE):
        list(recorded(played(3), tmp_path))
