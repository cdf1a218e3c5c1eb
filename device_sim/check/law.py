"""A law, what it raises, and what most of them look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fl_mobile.tensors import Spec, Tensors, TensorSpec

SPEC: Spec = {"w": TensorSpec((40, 12)), "b": TensorSpec((12,)), "variance": TensorSpec((12,), trainable=False)}
SEED = 7


class Broken(Exception):
    """A law does not hold; says how."""


@dataclass(frozen=True)
class Law:
    """One promise.

    Attributes:
        text: As a person reads it.
        holds: Row and its name → nothing; raises `Broken`, or whatever the row raises.
    """

    text: str
    holds: Callable[[Any, str], None]


def ask(fine: object, told: str) -> None:
    if not fine:
        raise Broken(told)


def updates(count: int = 5) -> list[Tensors]:
    rng = np.random.default_rng(SEED)
    return [{p: rng.laplace(size=t.shape).astype(np.float32) for p, t in SPEC.items()} for _ in range(count)]


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(one[p].tobytes() == other[p].tobytes() for p in one)


def check_tensors(what: str, tensors: Tensors) -> None:
    for path, spec in SPEC.items():
        value = tensors.get(path)
        ask(value is not None, f"{what}: tensor '{path}' is missing")
        found = np.asarray(value)
        ask(found.shape == spec.shape, f"{what}: '{path}' has shape {found.shape}, expected {spec.shape}")
        ask(found.dtype == np.float32, f"{what}: '{path}' is {found.dtype}, expected float32")
        ask(np.isfinite(found).all(), f"{what}: '{path}' holds NaN or Inf")
