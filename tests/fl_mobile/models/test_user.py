"""The user's own models: as repeatable as a row, and their mistakes named."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fl_mobile.errors import ModelError
from fl_mobile.models import build_model
from tests.fl_mobile.models.model_builds import digest

pytestmark = pytest.mark.tf

USER_CODE = """
import keras
from keras import layers

def small(input_shape, num_classes):  # unnamed, unseeded layers, as people write them
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(5), layers.Dropout(0.2),
                             layers.Dense(num_classes)])

def everything(**given):
    assert sorted(given) == ["input_scale", "input_shape", "num_classes", "seed", "weights"]
    return small(given["input_shape"], given["num_classes"])

class Twice(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = layers.Dense(4), layers.Dense(width)
    def call(self, x):
        return self.second(self.first(x))

def subclassed(input_shape, num_classes):
    model = Twice(num_classes)
    model(keras.ops.zeros((1, *input_shape)))
    return model

def one_output(input_shape): return small(input_shape, 1)
def not_built(num_classes): return keras.Sequential([layers.Dense(num_classes)])
def wrong_width(input_shape): return small(input_shape, 99)
def wrong_input(num_classes): return small((77,), num_classes)
def needs_more(input_shape, width): pass
def fails(): raise KeyError("layer_sizes")
def nothing(): pass
def keras_2():
    import tf_keras
    return tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Returns a function that builds one of the models in a file in the working directory."""
    (tmp_path / "my_models.py").write_text(USER_CODE)
    (tmp_path / "broken_models.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    arguments = {"input_shape": (4,), "num_classes": 3, "input_scale": 1.0, "seed": 0}
    yield lambda function, **change: build_model(f"my_models:{function}", **(arguments | change))
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("function", ["small", "everything", "subclassed"])
def test_the_users_own_model_is_as_repeatable_as_a_row(user, function):
    paths = list(sys.path)
    one, two, other = user(function), user(function), user(function, seed=1)
    assert sys.path == paths
    assert digest(one) == digest(two)
    assert [v.path for v in one.variables] == [v.path for v in other.variables]
    assert digest(one) != digest(other)


def test_the_users_own_model_starts_from_a_file(user, tmp_path):
    source = user("small", seed=4)
    source.save_weights(tmp_path / "w.weights.h5")
    loaded = user("small", weights=str(tmp_path / "w.weights.h5"))
    assert all(np.array_equal(a, b) for a, b in zip(source.get_weights(), loaded.get_weights(), strict=True))


def test_one_output_is_enough_for_two_classes(user):
    assert user("one_output", num_classes=2).output_shape == (None, 1)
    with pytest.raises(ModelError, match="expected outputs"):
        user("one_output", num_classes=3)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("smalll", "no function 'smalll'. Did you mean 'small'"),
        ("not_built", "not built"),
        ("wrong_width", r"expected outputs \(n, 3\) for 3 classes, got \(2, 99\)"),
        ("wrong_input", r"does not take inputs \(4,\)"),
        ("needs_more", "its parameter 'width' has no default"),
        ("fails", "KeyError: 'layer_sizes'"),
        ("nothing", "expected a keras.Model .* got builtins.NoneType"),
        ("keras_2", "expected a keras.Model .* got tf_keras"),
    ],
)
def test_mistakes_in_the_users_model_are_named(user, function, says):
    with pytest.raises(ModelError, match=says):
        user(function)


def test_modules_that_cannot_be_imported_are_named(user):
    arguments = {"input_shape": (4,), "num_classes": 3, "input_scale": 1.0, "seed": 0}
    with pytest.raises(ModelError, match=r"cannot import nowhere.models: ModuleNotFoundError"):
        build_model("nowhere.models:small", **arguments)
    with pytest.raises(ModelError, match=r"cannot import broken_models: .*no_such_package"):
        build_model("broken_models:small", **arguments)
