"""Rotated, zoomed and moved pictures: the device form is TensorFlow's kernel, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from export.training.autodiff import Tape, replay

pytestmark = pytest.mark.tf
RNG = np.random.default_rng(3)
PICTURES = RNG.random((3, 5, 7, 2)).astype(np.float32)
TURNED = [[0.8, -0.6, 2.3, 0.6, 0.8, -1.7, 0, 0], [1.7, 0, -2.1, 0, 0.4, 9.3, 0, 0], [1, 0, 40.2, 0, 1, -33.1, 0, 0]]
TILTED = [[1.1, 0.2, -1.3, 0.1, 0.9, 0.4, 0.03, -0.02], [1, 0, 0, 0, 1, 0, -1, 0], [0.5, 0, 1, 0, 2, 0.3, 0, 0.1]]


def both(transforms: Any, *, interpolation: str, fill: str) -> tuple[Any, Any]:
    """Returns the warped pictures by the kernel and by the device form."""

    def kernel(x: Any) -> Any:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=x,
            transforms=tf.constant(transforms, tf.float32),
            output_shape=PICTURES.shape[1:3],
            fill_value=0.3,
            interpolation=interpolation,
            fill_mode=fill,
        )

    graph = tf.function(kernel, autograph=False).get_concrete_function(tf.TensorSpec(PICTURES.shape)).graph
    device = tf.function(lambda x: replay(graph, [x], {}, Tape())[0], autograph=False)
    return kernel(tf.constant(PICTURES)), device(tf.constant(PICTURES))


@pytest.mark.parametrize("fill", ["CONSTANT", "REFLECT", "WRAP", "NEAREST"])
@pytest.mark.parametrize("interpolation", ["BILINEAR", "NEAREST"])
@pytest.mark.parametrize("transforms", [TURNED, TILTED, TURNED[:1]], ids=["affine", "projective", "one for all"])
def test_every_pixel_is_the_kernels(transforms: Any, interpolation: str, fill: str) -> None:
    want, got = both(transforms, interpolation=interpolation, fill=fill)
    np.testing.assert_allclose(got, want, atol=2e-5)
