"""Run folders of another version are named as such, by every reader, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from device_sim.report import read_runs
from device_sim.run.folder import LAYOUT, RunFolder, create, discard, refuse_existing, reopen
from device_sim.run.log import Round, read_rounds
from device_sim.run.loop import restore, simulate
from device_sim.run.summary import SCHEMA, read_summary
from device_sim.verify.run import verify_run
from fl_mobile.errors import RunError
from fl_mobile.server import checkpoint
from fl_mobile.storage.npz import read_arrays, write_arrays
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.report.made_runs import made_run, raw_rounds, write_lines
from tests.device_sim.run.test_run import experiment


def laid_out(value: Any) -> Callable[[RunFolder], None]:
    return lambda folder: folder.layout.write_text(value if isinstance(value, str) else json.dumps(value)) and None


OTHERS: dict[str, tuple[Callable[[RunFolder], None], str]] = {
    "none": (lambda folder: folder.layout.unlink(), "older fl-mobile, before runs had one.*another --out"),
    "older": (laid_out({"layout": 0, "fl_mobile": "0.0.9"}), "layout 0 of older fl-mobile 0.0.9.*another --out"),
    "newer": (laid_out({"layout": 99, "fl_mobile": "7.1"}), "layout 99 of newer fl-mobile 7.1.*use that version"),
    "damaged": (laid_out("{"), "layout.json: damaged"),
    "of nothing": (laid_out([]), "layout.json: damaged"),
}


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS)
def test_a_run_of_another_layout_is_named_as_such_by_every_reader(
    tmp_path: Path, change: Callable[[RunFolder], None], words: str
) -> None:
    folder = RunFolder(made_run(tmp_path / "run"))
    change(folder)
    for read in (reopen, lambda path: read_runs([path]), lambda path: verify_run(RunFolder(path))):
        with pytest.raises(RunError, match=words):
            read(folder.path)


def test_lines_of_another_version_are_named_with_file_line_and_field(tmp_path: Path) -> None:
    """Sweeps and resumed runs ended in a traceback of ``Round(**line)``."""
    federation = numpy_federation(experiment("train.rounds=2"))
    folder = create(tmp_path / "run", federation.experiment)
    list(simulate(federation, folder))
    for change in ({"later_field": 1}, {"cohort": ...}):
        lines = [{k: v for k, v in {**line, **change}.items() if v is not ...} for line in raw_rounds(folder.path)]
        good = folder.rounds.read_bytes()
        write_lines(folder.rounds, lines)
        for read in (lambda: read_rounds(folder), lambda: restore(federation, folder)):
            with pytest.raises(RunError, match=r"rounds.jsonl, line 1.*(later_field|cohort).*version of fl-mobile"):
                read()
        folder.rounds.write_bytes(good)
    folder.timeline.write_text("[]\n" + folder.timeline.read_text())
    with pytest.raises(RunError, match=r"timeline.jsonl, line 1"):
        restore(federation, folder)


def test_a_checkpoint_of_another_layout_is_not_called_damaged(tmp_path: Path) -> None:
    federation = numpy_federation(experiment("train.rounds=1"))
    folder = create(tmp_path / "run", federation.experiment)
    list(simulate(federation, folder))
    arrays = read_arrays(folder.checkpoint)
    for layout, age in ((checkpoint.LAYOUT + 1, "newer"), (None, "older")):
        meta = {**json.loads(arrays["meta"].tobytes()), "layout": layout}
        if layout is None:
            del meta["layout"]
        write_arrays(folder.checkpoint, {**arrays, "meta": memoryview(json.dumps(meta).encode())})  # type: ignore[dict-item]
        with pytest.raises(RunError, match=f"{age} fl-mobile") as caught:
            restore(federation, folder)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("schema", [None, 0, SCHEMA + 1, "1"])
def test_a_summary_of_another_version_is_named_as_such(tmp_path: Path, schema: object) -> None:
    folder = RunFolder(made_run(tmp_path / "run"))
    summary = json.loads(folder.summary.read_text()) | {"schema": schema}
    folder.summary.write_text(json.dumps(summary))
    for read in (lambda: read_summary(folder), lambda: read_runs([folder.path]), lambda: verify_run(folder)):
        with pytest.raises(RunError, match=r"summary\.json: of another version of fl-mobile.*--resume"):
            read()


def test_whoever_changes_the_fields_of_a_round_gives_the_layout_a_new_number() -> None:
    told = (
        *("round_num", "accuracy", "loss", "train_loss", "cohort", "accepted", "dropped", "upload_bytes"),
        *("download_bytes", "uploads", "downloads", "ratio", "air_seconds", "wall_seconds", "sim_seconds", "skipped"),
        *("saved_bytes", "joules", "staleness", "weights_norm", "device_accuracy", "malicious", "backdoor", "privacy"),
        *("masks", "metrics"),
    )
    assert (LAYOUT, tuple(f.name for f in fields(Round))) == (5, told)


def test_a_folder_with_a_layout_and_nothing_else_is_free_for_a_new_run(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", experiment())
    folder.experiment.unlink()  # killed before it was written
    refuse_existing(folder.path)
    create(folder.path, experiment())
    discard(folder)
    assert not folder.path.exists()
