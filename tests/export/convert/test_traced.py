"""A SavedModel written from traces converts to what TensorFlow's own does, and holds nothing it was not given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.convert.traced import write_saved_model
from export.tflite.graph import read_graph
from fl_mobile.models.private_api import saved_model_to_tflite

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def module() -> Any:
    """Two variables, of which one is counted up, and two functions over them."""
    import tensorflow as tf

    made = tf.Module()
    made.w, made.steps = (
        tf.Variable(tf.ones((3, 2)) * 7.0, name="w000"),
        tf.Variable(5, dtype=tf.int32),
    )
    fixed = tf.constant([2.0, 3.0])  # captured, and no variable

    @tf.function(autograph=False)
    def step(x: Any, rate: Any) -> Any:
        made.w.assign_sub(rate * tf.transpose(x[:2]))
        made.steps.assign_add(1)
        return {"z": tf.reshape(made.steps, [1]), "a": (x @ made.w) * fixed}

    @tf.function(autograph=False)
    def look(dummy: Any) -> Any:
        return {"w": tf.identity(made.w.read_value()), "echo": dummy + 1.0}

    x, one = tf.TensorSpec((4, 3), name="x"), tf.TensorSpec((1,), name="rate")
    made.functions = {
        "step": step.get_concrete_function(x=x, rate=one),
        "look": look.get_concrete_function(tf.TensorSpec((1,), name="dummy")),
    }
    return made


def converted(module: Any, folder: Path, *, with_values: bool) -> bytes:
    """Returns the module's functions as they run on a phone."""
    write_saved_model(module.variables, module.functions, str(folder), with_values=with_values)
    return saved_model_to_tflite(str(folder), list(module.functions))


def test_it_converts_to_the_operations_and_signatures_of_tensorflows_own(module: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    mine = read_graph(converted(module, tmp_path, with_values=True))
    tf.saved_model.save(module, tmp_path / "public", signatures=dict(module.functions))
    public = read_graph(saved_model_to_tflite(str(tmp_path / "public"), list(module.functions)))
    assert (mine.ops, mine.signatures) == (public.ops, public.signatures)


@pytest.mark.parametrize("with_values", [True, False])
def test_variables_begin_as_asked_and_are_shared_by_all_functions(
    module: Any, tmp_path: Path, with_values: bool
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    program = Interpreter(model_content=converted(module, tmp_path, with_values=with_values))
    look, step = (program.get_signature_runner(name) for name in ("look", "step"))
    start = np.full((3, 2), 7.0 * with_values, np.float32)
    x, dummy = np.arange(12, dtype=np.float32).reshape(4, 3) / 10, np.zeros(1, np.float32)
    np.testing.assert_array_equal(look(dummy=dummy)["w"], start)
    out, now = step(x=x, rate=dummy + 0.5), start - 0.5 * x[:2].T
    assert out["z"].tolist() == [6 if with_values else 1]
    np.testing.assert_allclose(out["a"], (x @ now) * [2.0, 3.0], rtol=1e-6)
    np.testing.assert_array_equal(look(dummy=dummy)["w"], now)


def test_names_of_variables_may_be_any_text(tmp_path: Path) -> None:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    variables = [tf.Variable([float(n)], name="_so far") for n in range(2)]
    both = tf.function(lambda x: {"y": x * tf.concat([v.read_value() for v in variables], 0)}, autograph=False)
    function = both.get_concrete_function(tf.TensorSpec((2,), name="x"))
    write_saved_model(variables, {"both": function}, str(tmp_path), with_values=True)
    program = Interpreter(model_content=saved_model_to_tflite(str(tmp_path), ["both"]))
    assert program.get_signature_runner("both")(x=np.full(2, 5, np.float32))["y"].tolist() == [0.0, 5.0]


def test_a_variable_that_was_not_given_is_refused(module: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a resource that is no variable of the program"):
        write_saved_model([module.steps], module.functions, str(tmp_path), with_values=False)
    assert not list(tmp_path.iterdir())
