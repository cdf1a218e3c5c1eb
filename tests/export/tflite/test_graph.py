"""The flatbuffer reader and the runtimes behind it meet hostile bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.runtimes import RUNTIMES, answers, missing_runtimes, open_session, run
from export.runtimes.isolated import isolated_replies
from export.tflite.graph import Graph, read_graph
from fl_mobile.errors import ConfigError, VerifyError
from tests.export.convert.topologies import Digits

pytestmark = pytest.mark.tf
UNASKED = [name for name, runtime in RUNTIMES.items() if not runtime.on_request]  # the others: tests/export/pages


@pytest.fixture(scope="module")
def artifact(whole_bundle: Path) -> bytes:
    return (whole_bundle / "int8.tflite").read_bytes()


def read_or_refuse(data: bytes) -> Graph | None:
    try:
        return read_graph(data)
    except VerifyError:
        return None


def test_reads_what_the_interpreter_reads(artifact: bytes) -> None:
    """Oracle: LiteRT's own view of the same bytes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=artifact)
    graph = read_graph(artifact)
    entry, detail = graph.signature("serving_default").inputs[0], interpreter.get_input_details()[0]
    assert entry.shape == tuple(detail["shape"])
    assert np.dtype(entry.dtype) == detail["dtype"]
    assert (entry.scale, entry.zero_point) == detail["quantization"]
    assert graph.tensors == len(interpreter.get_tensor_details())
    assert graph.file_bytes == len(artifact)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 7, b"\x1c\0\0\0TFL4" + b"\0" * 64], ids=len)
def test_not_a_flatbuffer(data: bytes) -> None:
    with pytest.raises(VerifyError, match="not a TFLite flatbuffer"):
        read_graph(data)


def test_truncated_anywhere_is_refused(artifact: bytes) -> None:
    # The last bytes may be padding nobody reads; a bundle's hash covers those.
    for length in [*range(400), *np.linspace(400, len(artifact) - 300, 200, dtype=int)]:
        assert read_or_refuse(artifact[:length]) is None, length


def test_any_bytes_give_a_graph_or_verify_error(artifact: bytes) -> None:
    rng = np.random.default_rng(11)
    outcomes = []
    for _ in range(1_500):
        damaged = bytearray(artifact)
        places = rng.integers(0, len(damaged), rng.integers(1, 6))
        structure = rng.random() < 0.7  # most bytes are weights; aim at offsets and tables too
        places = places % 600 if structure else places
        for place in places:
            damaged[place] = rng.integers(0, 256)
        outcomes.append(read_or_refuse(bytes(damaged)))
    refused = outcomes.count(None)
    assert 50 < refused < 1_500


def test_random_bytes_behind_the_magic() -> None:
    rng = np.random.default_rng(12)
    for length in rng.integers(8, 3_000, 500):
        data = bytearray(rng.bytes(length))
        data[:8] = int(rng.integers(8, length + 1)).to_bytes(4, "little") + b"TFL3"
        read_or_refuse(bytes(data))


def isolated_rows(runtimes: list[str], artifacts: dict[str, bytes], frames: np.ndarray) -> dict[tuple[str, str], Any]:
    """Returns all replies, or raises the first that is none."""
    replies = isolated_replies(runtimes, artifacts, {"image": frames})
    for reply in replies.values():
        if isinstance(reply, VerifyError):
            raise reply
    return replies


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "litert-compiled"])
def test_damage_never_takes_this_process_down(runtime: str, artifact: bytes) -> None:
    """Mutants that pass the reader do kill native runtimes; isolated, each ends as rows or a VerifyError."""
    rng, frames = np.random.default_rng(13), np.zeros((1, 8, 8, 1), np.uint8)
    mutants = []
    while len(mutants) < 60:
        bad = bytearray(artifact)
        for place in rng.integers(0, len(bad), 60):
            bad[place] = rng.integers(0, 256)
        graph = read_or_refuse(bytes(bad))
        if graph is not None and not graph.foreign_ops:
            mutants.append(bytes(bad))
    endings = []
    for mutant in mutants:
        try:
            isolated_rows([runtime], {"mutant": mutant}, frames)
            endings.append("rows")
        except VerifyError as error:
            endings.append("died" if "its process ended" in str(error) else "refused")
    assert "refused" in endings or "died" in endings


def test_a_dying_child_is_a_verify_error(artifact: bytes, data: Digits) -> None:
    with pytest.raises(VerifyError, match=r"b\.tflite on litert: not a TFLite flatbuffer"):
        isolated_rows(["litert"], {"a": artifact, "b": b"damaged!"}, data.x_test[:2])
    with pytest.raises(VerifyError, match=r"a\.tflite on nonsense: .*ended with code 1 .*ConfigError"):
        isolated_rows(["nonsense"], {"a": artifact}, data.x_test[:2])


def test_isolated_answers_are_the_same(artifact: bytes, data: Digits) -> None:
    here = [name for name in ("litert", "litert-compiled", "tf-lite") if name not in missing_runtimes()]
    rows = isolated_rows(here, {"int8": artifact}, data.x_test[:4])
    assert rows.keys() == {(runtime, "int8") for runtime in here} >= {("litert", "int8")}
    for runtime in here:
        expected = answers(runtime, artifact, data.x_test[:4])
        assert (rows[runtime, "int8"]["probabilities"] == expected).all(), runtime


@pytest.mark.parametrize("name", UNASKED)
def test_every_runtime_runs_or_says_why(name: str, artifact: bytes, data: Digits) -> None:
    reason = missing_runtimes().get(name)
    if reason is not None:
        assert "pip install" in reason
        with pytest.raises(ConfigError, match="cannot run here"):
            open_session(name, artifact)
        return
    session = open_session(name, artifact)
    rows = [session.run({"image": frame[None]})["probabilities"] for frame in data.x_test[:3]]
    assert all(row.shape == (1, 10) and row.dtype == np.uint8 for row in rows)
    assert (run(name, artifact, {"image": data.x_test[:1]})["probabilities"] == rows[0]).all(), "no state between runs"
    again = answers(name, artifact, data.x_test[:3])
    assert (again == np.concatenate(rows)).all()


@pytest.mark.parametrize("name", UNASKED)
@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 8, 8), np.uint8), np.zeros((1, 9, 8, 1), np.uint8), np.zeros((1, 8, 8, 1))]
)
def test_wrong_frames_are_refused(name: str, wrong: Any, artifact: bytes) -> None:
    if missing_runtimes().get(name):
        pytest.skip(missing_runtimes()[name])
    with pytest.raises(VerifyError, match=r"the artifact takes image uint8\[n, 8, 8, 1\]"):
        answers(name, artifact, wrong)
    with pytest.raises(ValueError, match=r"input 'image': expected uint8\[1, 8, 8, 1\]"):
        open_session(name, artifact).run({"image": wrong})


def test_unknown_runtime_names_the_nearest(artifact: bytes) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'litert'"):
        open_session("liteRT", artifact)
