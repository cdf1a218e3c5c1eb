"""What a client's file holds becomes what the coordinator's program takes, or is refused in a line that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_sim.deploy.examples import Examples, read_examples
from device_sim.deploy.fitting import rows_for
from export.training.contract import Contract, Port, Signature
from fl_mobile.errors import DataError
from fl_mobile.tasks import Head, multi_head
from fl_mobile.tasks.weighted import weighted

HEADS = multi_head([
    Head("mood", "classification", (), (3,), "sparse-categorical-crossentropy"),
    Head("pain", "regression", (1,), (1,), "mse"),
])  # fmt: skip


def contract(
    task: str, x: tuple[tuple[int, ...], str], y: tuple[int, ...], *, outputs: int = 3, inputs: tuple[str, ...] = ()
) -> Contract:
    """Returns what a client reads of a program: its ports and its task."""
    ports = (Port("x", (4, *x[0]), x[1]), Port("y", (4, *y), "float32"))
    infer = Signature("infer", ports[:1], (Port("outputs", (4, *y[:-1], outputs), "float32"),))
    return Contract(
        model="m",
        batch_size=4,
        optimizer="sgd",
        momentum=0.0,
        loss="mse",
        from_logits=True,
        label_smoothing=0.0,
        clip_norm=0.0,
        proximal=False,
        correction=False,
        accumulate=False,
        dropout_layers=0,
        weights=(),
        signatures=(Signature("train", ports, ()), infer),
        versions={},
        file_bytes=0,
        sha256="",
        task=task,
        inputs=inputs,
    )


PLAIN = contract("classification", ((2,), "float32"), ())
TOKENS = contract("sequence", ((3,), "int32"), (3,))
SEVERAL = contract(HEADS, ((3,), "float32"), (2,), inputs=("a:float32:1", "b:int32:2"))
X, Y = np.zeros((2, 2), np.float32), np.array([0, 2])


@pytest.mark.parametrize(
    ("takes", "arrays", "x", "y"),
    [
        (PLAIN, {"x": X + 1, "y": Y}, [[1, 1], [1, 1]], [0, 2]),
        (PLAIN, {"x": np.array([[1, 2], [3, 4]]), "y": Y.astype(np.uint8)}, [[1, 2], [3, 4]], [0, 2]),
        (TOKENS, {"x": np.array([[1, 2, 3]]), "y": np.array([[0, -1, -7]])}, [[1, 2, 3]], [[0, -1, -1]]),
        (contract("regression", ((1,), "float32"), (1,)), {"x": Y, "y": Y / 4}, [[0], [2]], [[0], [0.5]]),
        (
            contract("reconstruction", ((1, 2, 1), "uint8"), (1, 2, 1)),
            {"x": np.array([[[0, 255]]], np.uint8)},
            [[[[0], [255]]]],
            [[[[0], [1]]]],
        ),
        (
            contract(weighted("classification", ()), ((2,), "float32"), (2,)),
            {"x": X, "y": Y, "weight": np.array([0.5, 2])},
            [[0, 0], [0, 0]],
            [[0, 0.5], [2, 2]],
        ),
        (
            SEVERAL,
            {"x.b": np.array([[7, 8]]), "x.a": np.array([0.5]), "y.pain": np.array([1.5]), "y.mood": Y[1:]},
            [[0.5, 7, 8]],
            [[2, 1.5]],
        ),
    ],
)
def test_arrays_become_rows_of_the_program(
    takes: Contract, arrays: dict[str, np.ndarray], x: object, y: object
) -> None:
    found = rows_for(takes, Examples("one", arrays))
    assert (found[0].tolist(), found[1].tolist()) == (x, y)
    assert found[0].dtype == takes.signature("train").inputs[0].dtype


@pytest.mark.parametrize(
    ("takes", "change", "told"),
    [
        (PLAIN, {"weight": Y}, r"takes x, y; this client holds x, y, weight: save those arrays, no other"),
        (PLAIN, {"y": None}, r"\(task 'classification'\) takes x, y; this client holds x:"),
        (PLAIN, {"y": Y / 4}, r"'y' is float64\(2,\) with fractions, expected int\[n\]"),
        (PLAIN, {"y": Y + 1}, r"'y' has classes 1 to 3, the coordinator's model tells 0 to 2"),
        (PLAIN, {"y": Y - 1}, r"'y' has classes -1 to 1, the coordinator's model tells 0 to 2"),
        (PLAIN, {"x": X[:, :1]}, r"'x' is float32\(2, 1\), the coordinator takes float32\('n', 2\)"),
        (PLAIN, {"x": X * np.nan}, r"'x' is float32\(2, 2\), the coordinator takes finite float32"),
        (PLAIN, {"x": X.astype(int) + 2**24 + 1}, r"takes finite float32"),
        (PLAIN, {"x": X.astype(str)}, r"'x' is <U32\(2, 2\)"),
        (TOKENS, {"x": np.zeros((2, 3)), "y": np.zeros((2, 3), int)}, r"takes tokens from 0, int32\('n', 3\)"),
        (SEVERAL, {"x.a": Y, "x.b": np.full((2, 2), 2**25), "y.mood": Y, "y.pain": Y, "x": None, "y": None}, r"'x\.b'"),
        (TOKENS, {"x": np.zeros((2, 3), int), "y": np.zeros((2, 2), int)}, r"as the coordinator's model answers"),
        (TOKENS, {"x": np.full((2, 3), -1), "y": np.zeros((2, 3), int)}, r"takes tokens from 0, int32\('n', 3\)"),
        (contract("regression", ((2,), "uint8"), (1,)), {}, r"takes pixels uint8\('n', 2\)"),
        (SEVERAL, {}, r"\(task 'multi-head'\) takes x.a, x.b, y.mood, y.pain; this client holds x, y:"),
    ],
)
def test_what_the_program_does_not_take_is_refused_by_name(
    takes: Contract, change: dict[str, np.ndarray | None], told: str
) -> None:
    arrays = {name: value for name, value in {"x": X, "y": Y, **change}.items() if value is not None}
    with pytest.raises(DataError, match=told) as refused:
        rows_for(takes, Examples("one", arrays))
    assert str(refused.value).startswith("one: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": Y}, "no array 'x'. It holds: y"),
        ({"x": X, "y": Y[:1]}, r"as many examples in each array, at least one; got x \(2, 2\), y \(1,\)"),
        ({"x": X[:0], "y": Y[:0]}, "at least one"),
        ({"x": np.float32(1)}, "at least one"),
    ],
)
def test_files_without_examples_are_refused_before_anybody_is_asked(
    tmp_path: Path, arrays: dict[str, np.ndarray], told: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=told):
        read_examples(tmp_path, 1)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        read_examples(tmp_path, 1)
