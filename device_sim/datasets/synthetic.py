"""Made-up pictures a small CNN can learn: for tests, and first steps without any data."""

from __future__ import annotations

import numpy as np

from device_sim.datasets.records import Dataset, LoadRequest, check_array_bytes
from device_sim.datasets.split import split_dataset
from fl_mobile.seeds import rng_for

SHAPE, CLASSES = (16, 16, 1), 4
_GRID = 5  # coarse cells per side: blobs a 3×3 convolution sees, also after a shift by a pixel


def load_synthetic(request: LoadRequest) -> Dataset:
    """Returns seeded ``uint8[examples, height, width, channels]``, by default 1,000 of 16×16×1 in 4 classes.

    Each class is a random pattern of blobs; each example shifts its pattern by up to a pixel, changes its contrast
    and adds noise.
    """
    options = request.options
    shape, classes, count = options.shape or SHAPE, options.classes or CLASSES, options.examples or 1000
    check_array_bytes("synthetic", (count, *shape), 8)
    rng = rng_for(request.seed, "synthetic", count, classes, *shape)
    y = rng.permutation(np.arange(count) % classes).astype(np.int64)
    x = draw_examples(draw_patterns(rng, classes, shape), y, rng)
    labels = tuple(f"pattern-{label}" for label in range(classes))
    return split_dataset(
        name="synthetic", x=x, y=y, labels=labels, request=request, source=f"made from seed {request.seed}"
    )


def draw_patterns(rng: np.random.Generator, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns ``float64[classes, height, width, channels]`` in [−1, 1]: what each class looks like."""
    rows, columns = (np.arange(size) * _GRID // size for size in shape[:2])
    return rng.uniform(-1, 1, (classes, _GRID, _GRID, shape[2]))[:, rows][:, :, columns]


def draw_examples(pattern: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns ``uint8[n, height, width, channels]``, one picture of the class of each ``y`` ``int64[n]``."""
    height, width = pattern.shape[1:3]
    down, right = rng.integers(-1, 2, (2, len(y)))
    i = (np.arange(height) + down[:, None]) % height
    j = (np.arange(width) + right[:, None]) % width
    clean = pattern[y[:, None, None], i[:, :, None], j[:, None, :]]
    contrast = rng.uniform(50, 100, (len(y), 1, 1, 1))
    return np.clip(128 + contrast * clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
