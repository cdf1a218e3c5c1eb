"""Pictures of two digits with the class of every pixel: real handwriting, put together here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from device_sim.datasets.mnist import DIGITS, load_mnist_5k
from device_sim.datasets.records import Dataset, LoadRequest, Samples, make_dataset
from fl_mobile.seeds import rng_for

SHAPE = (32, 64, 1)
LABELS = ("background", *DIGITS)
_DIGIT, _INK = 28, 127


def load_two_digits(request: LoadRequest) -> Dataset:
    """Returns ``uint8[n, 32, 64, 1]`` and ``int64[n, 32, 64]``: 0 is background, a pixel of ink is its digit plus one.

    Every picture has two digits of the 5,000 of MNIST, one in each half, at a place drawn by the seed; every digit is
    in one picture. Those of test pictures are in no training picture.
    """
    digits = load_mnist_5k(replace(request, task="classification"))
    train, test = (
        _scenes(part, rng_for(request.seed, "two-digits", name))
        for name, part in (("train", digits.train), ("test", digits.test))
    )
    return make_dataset(
        "two-digits",
        train,
        test,
        LABELS,
        source=f"pairs of digits of the {digits.source}",
        task="segmentation",
        why="every pixel has a class",
    )


def _scenes(digits: Samples, rng: np.random.Generator) -> Samples:
    count = len(digits) // 2
    order = rng.permutation(len(digits))[: 2 * count].reshape(count, 2)
    x, y = np.zeros((count, *SHAPE), np.uint8), np.zeros((count, *SHAPE[:2]), np.int64)
    half = SHAPE[1] // 2
    places = rng.integers(0, (SHAPE[0] - _DIGIT + 1, half - _DIGIT + 1), (count, 2, 2))
    for picture, (pair, corners) in enumerate(zip(order, places, strict=True)):
        for side, (digit, (down, right)) in enumerate(zip(pair, corners, strict=True)):
            at = slice(down, down + _DIGIT), slice(side * half + right, side * half + right + _DIGIT)
            x[picture][at] = digits.x[digit]
            y[picture][at] = (digits.x[digit][..., 0] > _INK) * (digits.y[digit] + 1)
    return Samples(x, y)
