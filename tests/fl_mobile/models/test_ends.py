"""Models of several inputs and heads, joined for the pipeline and named for the phone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fl_mobile.errors import ModelError
from fl_mobile.models.ends import Port, author_of, inputs_of_rows, port_of, with_joined_ends
from fl_mobile.models.finish import STANDARDIZE, with_ends, with_standardised_inputs
from fl_mobile.tasks import Head, multi_head
from fl_mobile.tasks.heads import answers_of, joined

PORTS = (Port("photo", (4, 4, 1), "uint8"), Port("words", (3,), "int32"))
HEADS = (
    Head("mood", "classification", (), (3,), "sparse-categorical-crossentropy"),
    Head("tags", "multi-label", (2,), (2,), "binary-crossentropy"),
    Head("pain", "regression", (1,), (1,), "mse"),
)
TASK = multi_head(HEADS)


def author(kind: str = "dict", heads: str = "softmax") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    photo, words = keras.Input((4, 4, 1), name="photo"), keras.Input((3,), dtype="int32", name="words")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(photo))
    x = keras.layers.Concatenate()([x, keras.layers.Flatten()(keras.layers.Embedding(9, 2)(words))])
    last = {"softmax": ("softmax", "sigmoid"), "logits": (None, None)}[heads]
    outs = {
        "mood": keras.layers.Dense(3, last[0])(x),
        "tags": keras.layers.Dense(2, last[1])(x),
        "pain": keras.layers.Dense(1)(x),
    }
    if kind == "dict":
        return keras.Model({"photo": photo, "words": words}, outs)
    return keras.Model([photo, words], list(outs.values()))


def rows(count: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
    return {"photo": photo, "words": rng.integers(0, 9, (count, 3), np.int32)}


def test_inputs_come_out_of_a_row_as_they_went_in() -> None:
    given = rows()
    found = inputs_of_rows(PORTS, joined(given))
    for name, part in given.items():
        assert found[name].dtype == part.dtype
        np.testing.assert_array_equal(found[name], part)
    assert [port_of(port.text) for port in PORTS] == list(PORTS)


@pytest.mark.tf
@pytest.mark.parametrize("kind", ["dict", "list"])
@pytest.mark.parametrize("heads", ["softmax", "logits"])
def test_a_joined_model_answers_as_its_author_and_a_phone_gets_probabilities(kind: str, heads: str) -> None:
    import tensorflow as tf

    model, x = author(kind, heads), rows()
    whole = with_joined_ends(lambda: model, PORTS, TASK)
    assert author_of(whole) is model
    assert [v.path for v in whole.variables] == [v.path for v in model.variables]
    asked = {name: tf.constant(part.astype(np.float32) if name == "photo" else part) for name, part in x.items()}
    plain = model(asked if kind == "dict" else list(asked.values()))
    plain = dict(zip([h.name for h in HEADS], plain.values() if kind == "dict" else plain, strict=True))
    found = answers_of(HEADS, np.asarray(whole(joined(x))))
    mood = tf.nn.softmax(found["mood"]).numpy()
    np.testing.assert_allclose(mood, plain["mood"] if heads == "softmax" else tf.nn.softmax(plain["mood"]), atol=1e-6)
    np.testing.assert_allclose(found["pain"], plain["pain"], atol=1e-6)
    phone = with_ends(whole, PORTS, TASK, loss="sum-of-heads")(asked)
    np.testing.assert_allclose(phone["mood"], mood, atol=1e-6)
    np.testing.assert_allclose(phone["tags"], tf.sigmoid(found["tags"]), atol=1e-6)
    np.testing.assert_allclose(phone["pain"], plain["pain"], atol=1e-6)


@pytest.mark.tf
@pytest.mark.parametrize(
    ("ports", "heads", "told"),
    [
        (PORTS[:1], HEADS, "its inputs are photo, words; the data has photo"),
        ((Port("photo", (5, 5, 1), "uint8"), PORTS[1]), HEADS, r"input 'photo' takes \(4, 4, 1\).*the data has \(5, 5"),
        (PORTS, HEADS[:2], "its outputs are mood, pain, tags; the data has mood, tags|mood, tags, pain; the data has"),
        (PORTS, (Head("mood", "classification", (), (4,), HEADS[0].loss), *HEADS[1:]), r"'mood' answers \(batch, 3\)"),
    ],
)
def test_a_model_with_other_ends_is_refused(ports: Any, heads: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        with_joined_ends(author, ports, multi_head(heads))


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_features_are_standardised_before_an_author_with_heads_however_they_are_ordered(kind: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    row = keras.Input((2,))
    pain, mood = keras.layers.Dense(1, name="pain")(row), keras.layers.Dense(2, name="mood")(row)
    plain = keras.Model(row, [pain, mood] if kind == "list" else {"pain": pain, "mood": mood})
    task = multi_head([
        Head("mood", "classification", (), (2,), "sparse-categorical-crossentropy"),
        Head("pain", "regression", (1,), (1,), "mse"),
    ])  # fmt: skip
    mean, spread = [100.0, -3.0], [50.0, 0.1]
    model = with_joined_ends(lambda: with_standardised_inputs(lambda: plain, mean, spread, task=task), (), task)
    x = np.random.default_rng(0).normal(mean, spread, (7, 2)).astype(np.float32)
    want = plain(((x - mean) / spread).astype(np.float32))
    want = want if kind == "dict" else dict(zip(("pain", "mood"), want, strict=True))
    joint = np.concatenate([want["mood"], want["pain"]], axis=1)
    np.testing.assert_allclose(model(x), joint, atol=1e-4)
    phone = with_ends(author_of(model), (), task, loss="")
    np.testing.assert_allclose(phone([x])["pain"], want["pain"], atol=1e-4)
    assert STANDARDIZE in [layer.name for layer in author_of(model).layers]


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_inputs_are_standardised_as_by_normalization_layers_of_keras(kind: str) -> None:
    import keras

    ports = (Port("words", (3,), "int32"), Port("lab", (2,), "float32"), Port("photo", (2, 2, 1), "uint8"))
    ports = (*ports, Port("vitals", (3,), "float32"))
    mean, spread = [100.0, -3.0, 0.5, 7.0, -1e4], [50.0, 0.1, 1.0, 3.0, 2e3]

    def build(*, with_layers: bool) -> Any:
        keras.utils.set_random_seed(0)
        inputs = {port.name: keras.Input(port.shape, dtype=port.dtype, name=port.name) for port in ports}
        parts = dict(inputs)
        if with_layers:
            for name, where in (("lab", slice(0, 2)), ("vitals", slice(2, 5))):
                variance = np.square(spread[where])
                parts[name] = keras.layers.Normalization(mean=mean[where], variance=variance)(parts[name])
        flat = [keras.layers.Flatten()(keras.ops.cast(part, "float32")) for part in parts.values()]
        answer = keras.layers.Dense(2)(keras.layers.Concatenate()(flat))
        return keras.Model(inputs if kind == "dict" else list(inputs.values()), answer)

    rng = np.random.default_rng(0)
    numbers = rng.normal(mean, spread, (7, 5)).astype(np.float32)
    x = {"words": rng.integers(0, 9, (7, 3)), "lab": numbers[:, :2], "vitals": numbers[:, 2:]}
    x["photo"] = rng.integers(0, 256, (7, 2, 2, 1)).astype(np.uint8)
    x = {port.name: x[port.name].astype(port.dtype) for port in ports}
    model = with_standardised_inputs(lambda: build(with_layers=False), mean, spread, ports=ports)
    want = build(with_layers=True)(x if kind == "dict" else list(x.values()))
    np.testing.assert_allclose(model(x), want, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(with_joined_ends(lambda: model, ports, "classification")(joined(x)), want, 1e-4, 1e-3)
    assert {f"{STANDARDIZE}_lab", f"{STANDARDIZE}_vitals"} <= {layer.name for layer in model.layers}
    with pytest.raises(ModelError, match=r"its inputs are .*; the data has words"):
        with_standardised_inputs(lambda: build(with_layers=False), mean, spread, ports=ports[:1])
