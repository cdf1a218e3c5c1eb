"""Builds a row in its usual setting, with seeded weights, and tells two models apart."""

from __future__ import annotations

import hashlib

from fl_mobile.models import MODELS, build_model


def build(name: str, seed: int = 0, **change):
    row = MODELS[name]
    arguments = {
        "input_shape": row.input_shape,
        "num_classes": row.num_classes,
        "input_scale": 1.0 if row.input_dtype == "int32" else 1 / 255,
        "seed": seed,
        "weights": "none",
    }
    return build_model(name, **(arguments | change))


def digest(model) -> str:
    """SHA-256 over paths and values of every variable, seed states included."""
    total = hashlib.sha256()
    for variable in model.variables:
        total.update(variable.path.encode())
        total.update(variable.numpy().tobytes())
    return total.hexdigest()
