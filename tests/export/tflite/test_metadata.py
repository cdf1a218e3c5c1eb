"""What a ``.tflite`` says about itself: as MediaPipe writes it, beside a graph that is not touched."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.convert.recipes import CORE_RECIPES, find_recipe
from export.convert.to_tflite import to_tflite
from export.runtimes import run_frames
from export.tflite.attach import attach, detach
from export.tflite.graph import read_graph
from export.tflite.metadata import About, label_file, read_metadata, with_metadata
from export.tflite.metadata_schema import TABLES, UNIONS, decode, encode
from fl_mobile.errors import ExportError, VerifyError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf

# Written by the generated classes of mediapipe 1.2.2 (metadata_schema_py_generated), with an author, which is not in
# our table. The same fields written by `encode` were read back with those classes.
MEDIAPIPE = base64.b64decode(
    "HAAAAE0wMDEUACAAHAAYABQAEAAMAAgAAAAEABQAAAAcAAAAJAAAADAAAABEAAAAqAEAALQBAADAAQAABQAAADEuMC4wAAAACgAAAEFw"
    "YWNoZS0yLjAAABAAAABub3QgaW4gb3VyIHRhYmxlAAAAAAEAAAAQAAAADAAMAAAAAAAIAAQADAAAAAgAAACYAAAAAQAAABgAAAAAABIA"
    "EAAMAAAAAAAIAAAAAAAEABIAAAAMAAAASAAAAFgAAAABAAAAEAAAAAAACgAQAAwACAAHAAoAAAAAAAACCAAAABAAAAAHAAAAY2xhc3Nl"
    "cwAKAAAAbGFiZWxzLnR4dAAAiP///wwAAAAAAAABBAAEAAQAAAANAAAAcHJvYmFiaWxpdGllcwAAAAEAAAAUAAAAEAAUABAAAAAAAAwA"
    "CAAEABAAAAAQAAAAKAAAAGwAAACAAAAAyP///wgAAAAMAAAAAQAAAAAAAAABAAAAAAB/QwEAAAAMAAAACAAMAAsABAAIAAAAEAAAAAAA"
    "AAEIAAwACAAEAAgAAAAIAAAADAAAAAEAAAAAAIA/AQAAAAAAAAAIAAoACQAEAAgAAAAMAAAAAAIGAAgABwAGAAAAAAAAAQUAAABpbWFn"
    "ZQAAAAgAAAAwMTIzYWJjZAAAAAAJAAAAw5xuw69jb2RlAAAADAAAAHNtYXJ0LWNhbWVyYQAAAAA="
)
FIELDS: dict[str, Any] = {
    "name": "smart-camera",
    "description": "Ünïcode",
    "version": "0123abcd",
    "subgraph_metadata": [
        {
            "input_tensor_metadata": [
                {
                    "name": "image",
                    "content": {"type": 2, "content_properties": {"color_space": 1}},
                    "process_units": [{"type": 1, "options": {"mean": [0.0], "std": [1.0]}}],
                    "stats": {"max": [255.0], "min": [0.0]},
                }
            ],
            "output_tensor_metadata": [
                {
                    "name": "probabilities",
                    "content": {"type": 1, "content_properties": {}},
                    "associated_files": [{"name": "labels.txt", "description": "classes", "type": 2}],
                }
            ],
        }
    ],
    "license": "Apache-2.0",
    "min_parser_version": "1.0.0",
}
ABOUT = About("digits", "ten digits", "0123456789abcdef", "Apache-2.0")


def values(kind: str, table: str) -> st.SearchStrategy[Any]:
    """Returns values of one field type of the schema."""
    if kind == "byte":
        return st.integers(1, 127)
    if kind == "string":
        return st.text(max_size=12)
    if kind == "[float]":
        return st.lists(st.floats(width=32, allow_nan=False), max_size=4)
    if kind.startswith("["):
        return st.lists(st.deferred(lambda: tables(kind[1:-1])), max_size=2)
    return st.deferred(lambda: tables(kind))


def tables(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Returns tables with any subset of their fields; a union's number and member come together."""
    if name in UNIONS:
        key = next(field for field, (_, kind) in TABLES[name].items() if kind == "type")
        members = [
            st.fixed_dictionaries({"type": st.just(number), key: tables(member)})
            for number, member in UNIONS[name].items()
        ]
        return st.one_of(members)
    return st.fixed_dictionaries({}, optional={f: values(kind, name) for f, (_, kind) in TABLES[name].items()})


@pytest.fixture(scope="module")
def plain(model: Any, data: Digits) -> Callable[[str], bytes]:
    """Returns the artifact of a recipe as the converter made it."""
    made: dict[str, bytes] = {}

    def artifact(recipe: str) -> bytes:
        if recipe not in made:
            made[recipe] = to_tflite(model, find_recipe(recipe), representative=data.x_train[:50])
        return made[recipe]

    return artifact


def test_mediapipes_bytes_are_read() -> None:
    assert decode(MEDIAPIPE) == FIELDS


@given(tables("ModelMetadata"))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(fields: dict[str, Any]) -> None:
    assert decode(encode(fields)) == fields
    assert encode(fields) == encode(fields)


@given(st.binary(max_size=80), st.integers(0, len(MEDIAPIPE)))
@settings(max_examples=300, deadline=None)
def test_reader_survives_any_bytes(patch: bytes, place: int) -> None:
    patched = MEDIAPIPE[:place] + patch + MEDIAPIPE[place + len(patch) :]
    for hostile in (patched, MEDIAPIPE[:place], b"1234M001" + patch):
        try:
            decode(hostile)
        except VerifyError:
            continue


def test_kinds_of_process_units_that_are_not_ours_are_skipped() -> None:
    def units(data: bytes) -> Any:
        try:
            return decode(data)["subgraph_metadata"][0]["input_tensor_metadata"][0]["process_units"]
        except (VerifyError, KeyError, IndexError):
            return None

    ones = [place for place in range(8, len(MEDIAPIPE)) if MEDIAPIPE[place] == 1]
    changed = [MEDIAPIPE[:place] + b"\x04" + MEDIAPIPE[place + 1 :] for place in ones]
    assert [{"type": 4}] in [units(data) for data in changed]


def test_a_claimed_length_is_not_believed() -> None:
    place = MEDIAPIPE.index(b"smart-camera") - 4
    for length in (2**31, 2**32 - 1, len(MEDIAPIPE)):
        with pytest.raises(VerifyError, match="do not fit"):
            decode(MEDIAPIPE[:place] + struct.pack("<I", length) + MEDIAPIPE[place + 4 :])


@pytest.mark.parametrize("recipe", CORE_RECIPES)
def test_the_graph_is_not_touched(recipe: str, plain: Callable[[str], bytes], data: Digits) -> None:
    before = plain(recipe)
    after = with_metadata(before, ABOUT, {"probabilities": LABELS})
    assert after == with_metadata(before, ABOUT, {"probabilities": LABELS})
    moved = after.index(before[8:]) - 8
    assert moved % 16 == 0
    old, new = read_graph(before), read_graph(after)
    assert (new.ops, new.signatures, new.tensors, new.weights) == (old.ops, old.signatures, old.tensors, old.weights)
    frames = {old.signature("serving_default").inputs[0].name: data.x_test[:20]}
    for runtime in ("litert", "tf-lite"):
        rows = [run_frames(runtime, artifact, frames)["probabilities"] for artifact in (before, after)]
        assert (rows[0] == rows[1]).all(), runtime


def test_zip_and_reader_see_the_labels(plain: Callable[[str], bytes]) -> None:
    artifact = with_metadata(plain("float32"), ABOUT, {"probabilities": LABELS})
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().splitlines() == LABELS
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    found = read_metadata(artifact)
    assert found.about == ABOUT
    assert (found.inputs, found.outputs) == (("image",), ("probabilities",))
    assert found.labels == {"probabilities": tuple(LABELS)}


def test_without_labels_there_is_no_zip_to_read(plain: Callable[[str], bytes]) -> None:
    found = read_metadata(with_metadata(plain("float32"), About("", "", "1"), {}))
    assert found.labels == {}
    assert found.about == About("", "", "1")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"probabilities": LABELS[:-1]}, r"output 'probabilities' has 10 values, got 9 labels"),
        ({"probabilities": [*LABELS, "eleven"]}, "10 values, got 11"),
        ({"scores": LABELS}, "output 'scores' has no values"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: dict[str, list[str]], message: str, plain: Callable[[str], bytes]
) -> None:
    with pytest.raises(ExportError, match=message):
        with_metadata(plain("float32"), ABOUT, labels)


def test_metadata_is_attached_once(plain: Callable[[str], bytes]) -> None:
    once = attach(plain("float32"), encode(FIELDS), {})
    with pytest.raises(ExportError, match="fresh TFLite file"):
        attach(once, encode(FIELDS), {})
    with pytest.raises(VerifyError, match="no TFLite metadata"):
        read_metadata(plain("float32"))


def test_a_cut_or_damaged_tail_is_found(plain: Callable[[str], bytes]) -> None:
    good = with_metadata(plain("float32"), ABOUT, {"probabilities": LABELS})
    tail = len(good) - good.rindex(b"PK\x03\x04")
    for cut in range(1, tail + 1, 7):
        with pytest.raises(VerifyError, match="zip"):
            read_metadata(good[:-cut])
    place = good.rindex(LABELS[0].encode())
    with pytest.raises(VerifyError, match="zip"):
        read_metadata(good[:place] + b"X" + good[place + 1 :])


def test_detach_survives_any_tail(plain: Callable[[str], bytes]) -> None:
    good = with_metadata(plain("float32"), ABOUT, {"probabilities": LABELS})
    start, rng = good.rindex(b"PK\x03\x04"), np.random.default_rng(4)
    for _ in range(400):
        bad = bytearray(good)
        for place in rng.integers(start, len(good), 3):
            bad[place] = rng.integers(0, 256)
        try:
            detach(bytes(bad))
        except VerifyError:
            continue


def test_label_files_of_several_outputs_have_names_of_their_own() -> None:
    assert label_file("probabilities", 1) == "labels.txt"
    assert len({label_file(name, 2) for name in ("digit", "parity")}) == 2
