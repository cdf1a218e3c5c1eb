"""What a bundle says of its task is enough for an app without Python, and damage to it turns ``verify`` red."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import verify_bundle
from export.bundles.folder import Bundle, canonical_json, read_bundle, sha256, write_bundle
from export.bundles.phone_task import (
    REPLAY_FILE,
    TASK_FILE,
    Moments,
    PhoneTask,
    Replay,
    lines_of,
    unpack_replay,
)
from export.model.forms import Entry
from export.model.serving import End, Serving
from export.runtimes import answers, real_values
from export.tflite.attach import detach
from export.tflite.graph import read_graph
from export.tflite.metadata import VOCABULARY_FILE, read_metadata
from export.verify.golden import unpack_golden
from fl_mobile.errors import ConfigError, ExportError, VerifyError
from fl_mobile.storage.npz import pack_arrays
from tests.export.of_tasks import CHANNELS, HOP, STEPS, TOKENS, WINDOW, keyboard_task, sensor_task

pytestmark = pytest.mark.tf
Files = dict[str, bytes]


def task_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / TASK_FILE).read_bytes()))


def test_the_keyboard_says_all_that_typing_needs(keyboard_bundle: Path) -> None:
    """An app's way from a text to the next character, with nothing but files of the bundle."""
    told = task_of(keyboard_bundle)
    tokens = (keyboard_bundle / told["input"]["vocabulary"]).read_text(encoding="utf-8").split("\n")[:-1]
    assert (tokens, told["input"]["of"], told["input"]["unknown"]) == (list(TOKENS), "characters", 0)
    assert told["output"]["next"]
    numbers = [tokens.index(character) if character in tokens else 0 for character in "h abc"]
    row = np.zeros((1, *told["input"]["shape"]), np.int32)
    row[0, : len(numbers)] = numbers
    data = (keyboard_bundle / "float32.tflite").read_bytes()
    end = read_graph(data).signature("serving_default").outputs[0]
    answered = real_values(end, answers("litert", data, row))
    assert answered.shape == (1, *told["output"]["shape"])
    assert tokens[int(answered[0, len(numbers) - 1].argmax())] == "d"


def test_the_recording_says_how_windows_are_cut(shaking_bundle: Path) -> None:
    source = task_of(shaking_bundle)["input"]
    assert source["channels"] == [{"name": name, "unit": unit} for name, unit in CHANNELS]
    assert (source["window"], source["hop"], source["hertz"]) == (WINDOW, HOP, 20.0)
    shown = unpack_replay((shaking_bundle / source["replay"]).read_bytes())
    assert shown.signal.shape == (8 * WINDOW, len(CHANNELS))
    assert set(shown.truth.tolist()) == {0, 1}
    assert (shaking_bundle / "labels.txt").read_text() == "rest\nshake\n"


def test_the_artifact_itself_says_it_too(keyboard_bundle: Path) -> None:
    for file in keyboard_bundle.glob("*.tflite"):
        found = read_metadata(file.read_bytes())
        assert found.vocabularies == {"tokens": TOKENS}
        assert found.labels == {"probabilities": TOKENS}
        assert list(detach(file.read_bytes()).files) == [VOCABULARY_FILE]


def test_golden_examples_keep_their_targets(keyboard_bundle: Path) -> None:
    golden = unpack_golden((keyboard_bundle / "golden.npz").read_bytes())
    x, y = golden.frames["tokens"], golden.labels["probabilities"]
    assert y.shape == x.shape == (16, STEPS)
    assert (y[:, -1] == -1).all()
    assert (golden.keras["probabilities"].argmax(axis=2) == y)[y >= 0].all()


def test_the_card_says_what_it_is_for(keyboard_bundle: Path, shaking_bundle: Path, whole_bundle: Path) -> None:
    card = (keyboard_bundle / "model_card.md").read_text()
    assert "- what: sequence, one of k classes at every step" in card
    assert f"characters by their numbers in `{VOCABULARY_FILE}`" in card
    assert "the next token at every step" in card
    assert "accuracy 1 (Keras 1)" in card, "the task's own score"
    card = (shaking_bundle / "model_card.md").read_text()
    assert "windows of 16 samples at 20 Hz, one every 8: acc-x in g, gyro-x in rad/s" in card
    assert "## Task" not in (whole_bundle / "model_card.md").read_text(), "nobody said"


def test_the_same_model_and_task_give_the_same_bytes() -> None:
    told = sensor_task().recording
    assert told is not None
    assert told.replay is not None
    assert bytes(pack_arrays(vars(told.replay))) == bytes(pack_arrays(vars(told.replay)))


def rewritten(bundle: Bundle, out: Path, change: Callable[[Files], None]) -> Path:
    """Returns a bundle whose manifest fits, by somebody who changed what is in it."""
    files = dict(bundle.files)
    change(files)
    about = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema", "manifest_sha256")}
    write_bundle(out, files, about)
    return out


def told_anew(files: Files, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes ``task.json``, and report.json so that it says the same."""
    told, report = json.loads(files[TASK_FILE]), json.loads(files["report.json"])
    change(told)
    report["task"] = told
    files[TASK_FILE], files["report.json"] = canonical_json(told), canonical_json(report)


def swap_two_tokens(files: Files) -> None:
    files[VOCABULARY_FILE] = files[VOCABULARY_FILE].replace(b"a\nb\n", b"b\na\n")


def swap_and_say_so(files: Files) -> None:
    swap_two_tokens(files)
    told_anew(files, lambda told: told["files"].update({VOCABULARY_FILE: sha256(files[VOCABULARY_FILE])}))


def shorten_and_say_so(files: Files) -> None:
    files[VOCABULARY_FILE] = b"".join(files[VOCABULARY_FILE].splitlines(keepends=True)[:-1])
    told_anew(files, lambda told: told["files"].update({VOCABULARY_FILE: sha256(files[VOCABULARY_FILE])}))


def no_file(files: Files) -> None:
    del files[TASK_FILE]


def another_task(files: Files) -> None:
    files[TASK_FILE] = files[TASK_FILE].replace(b'"sequence"', b'"segmentation"')


def not_utf8(files: Files) -> None:
    files[VOCABULARY_FILE] = b"\xff" + files[VOCABULARY_FILE]
    told_anew(files, lambda told: told["files"].update({VOCABULARY_FILE: sha256(files[VOCABULARY_FILE])}))


VOCABULARY_DAMAGE: dict[str, tuple[Callable[[Files], None], str]] = {
    "two tokens swapped": (swap_two_tokens, r"vocabulary\.txt is not the file that was written"),
    "swapped, hash and report too": (swap_and_say_so, "inside it are not those|vocabulary inside it is not"),
    "one token less": (shorten_and_say_so, r"vocabulary\.txt has 10 lines, the model answers 11"),
    "no task.json": (no_file, r"at odds: one of them says nothing of the task"),
    "another task": (another_task, r"task\.json says something else than report\.json"),
    "not UTF-8": (not_utf8, "not UTF-8"),
    "vocabulary gone": (lambda files: files.pop(VOCABULARY_FILE) and None, r"vocabulary\.txt is missing"),
    "no such task": (
        lambda files: told_anew(files, lambda told: told.update(task="sequenc")),
        "unknown task 'sequenc'",
    ),
    "input renamed": (
        lambda files: told_anew(files, lambda told: told["input"].update(name="other")),
        "input and output are not other",
    ),
}


@pytest.mark.parametrize("damage", VOCABULARY_DAMAGE)
def test_a_damaged_vocabulary_turns_verify_red(damage: str, keyboard_bundle: Path, tmp_path: Path) -> None:
    change, message = VOCABULARY_DAMAGE[damage]
    path = rewritten(read_bundle(keyboard_bundle), tmp_path / "lie", change)
    with pytest.raises(VerifyError, match=rf"failed at flatbuffer.*({message})"):
        verify_bundle(path)


def test_one_flipped_byte_is_found_by_its_hash(keyboard_bundle: Path, tmp_path: Path) -> None:
    path = rewritten(read_bundle(keyboard_bundle), tmp_path / "copy", lambda files: None)
    (path / VOCABULARY_FILE).write_bytes((path / VOCABULARY_FILE).read_bytes().replace(b"a\n", b"z\n"))
    with pytest.raises(VerifyError, match=r"failed at hash.*vocabulary\.txt: expected SHA-256"):
        verify_bundle(path)


def replaced(**parts: np.ndarray) -> Callable[[Files], None]:
    """Returns a change of the recording, told in ``task.json`` as well."""

    def change(files: Files) -> None:
        files[REPLAY_FILE] = bytes(pack_arrays({**vars(unpack_replay(files[REPLAY_FILE])), **parts}))
        told_anew(files, lambda told: told["files"].update({REPLAY_FILE: sha256(files[REPLAY_FILE])}))

    return change


def told(**changes: Any) -> Callable[[Files], None]:
    return lambda files: told_anew(files, lambda task: task["input"].update(changes))


RECORDING_DAMAGE: dict[str, tuple[Callable[[Files], None], str]] = {
    "other channels": (replaced(signal=np.zeros((8 * WINDOW, 3), np.float32)), "samples of 2 channels"),
    "NaN": (replaced(signal=np.full((8 * WINDOW, 2), np.nan, np.float32)), "finite samples"),
    "a class too many": (replaced(truth=np.full(8 * WINDOW, 2, np.int32)), "beyond the 2 of the model"),
    "cuts that fall": (replaced(cuts=np.array([30, 10], np.int32)), "cuts do not rise"),
    "another array": (replaced(more=np.zeros(3, np.float32)), "cannot be read"),
    "another window": (told(window=WINDOW - 1), "a window of 15 samples is told, the model takes 16"),
    "a channel too few": (told(channels=[{"name": "acc-x", "unit": "g"}]), "1 channels are named, the model takes 2"),
}


@pytest.mark.parametrize("damage", RECORDING_DAMAGE)
def test_a_damaged_recording_turns_verify_red(damage: str, shaking_bundle: Path, tmp_path: Path) -> None:
    change, message = RECORDING_DAMAGE[damage]
    path = rewritten(read_bundle(shaking_bundle), tmp_path / "lie", change)
    with pytest.raises(VerifyError, match=rf"failed at flatbuffer.*{message}"):
        verify_bundle(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": ("a", "a")}, "'a' more than once"),
        ({"vocabulary": ("<other>", "\n")}, r"a line feed is written \\n"),
        ({"vocabulary": ()}, "no vocabulary is given"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        keyboard_task(**changes)


def test_a_task_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'sequences'"):
        PhoneTask("sequences")


@pytest.mark.parametrize("numbers", [((1.0,), ()), ((float("nan"),), (1.0,))])
def test_scaling_is_finite_and_whole(numbers: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(ExportError, match="scaling: expected a finite mean and spread each"):
        Moments(*numbers)


def test_lines_keep_blanks() -> None:
    assert lines_of(b"a\n \nb\n") == ("a", " ", "b")


def test_a_replay_is_arrays_and_nothing_else() -> None:
    for data in (b"", b"PK\x03\x04 no zip", bytes(pack_arrays({"signal": np.array(["x"])}))):
        with pytest.raises(ExportError, match=r"replay\.npz cannot be read"):
            unpack_replay(data)
    whole = Replay(np.zeros((4, 2), np.float32), np.zeros(4, np.int32), np.zeros(0, np.int32))
    assert unpack_replay(bytes(pack_arrays(vars(whole)))).signal.shape == (4, 2)


def test_features_are_told_by_name_and_scaling() -> None:
    """Of a table: columns in order, the numbers that the graph scales by, and no more of either than there are."""
    serving = Serving(
        inputs=(Entry("features", (1, 2), "float32"),),
        outputs=(End("numbers", (1, 1), "values"),),
        control_flow=(),
        parameters=3,
        kernel_weights=2,
        weights_sha256="0" * 64,
    )
    whole = PhoneTask(
        "regression",
        names=("progression",),
        columns=("pulse", "weight"),
        inputs=Moments((60.0, 70.0), (5.0, 8.0)),
        outputs=Moments((150.0,), (77.0,)),
    )
    files = whole.files(serving)
    source, answer = (json.loads(files[TASK_FILE])[side] for side in ("input", "output"))
    assert (source["holds"], source["columns"]) == ("features", ["pulse", "weight"])
    assert source["scaling"] == {"mean": [60.0, 70.0], "spread": [5.0, 8.0]}
    assert (answer["holds"], answer["scaling"]) == ("numbers", {"mean": [150.0], "spread": [77.0]})
    assert files["labels.txt"] == b"progression\n"
    for wrong, message in (
        ({"columns": ("pulse",)}, "1 columns are named, the model takes 2"),
        ({"inputs": Moments((60.0,), (5.0,))}, r"scaling has \[1\] numbers, the model 2"),
        ({"names": ("a", "b")}, r"labels\.txt has 2 lines, the model answers 1 values"),
    ):
        with pytest.raises(ExportError, match=message):
            replace(whole, **wrong).files(serving)
