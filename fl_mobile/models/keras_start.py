"""Imports Keras without the packages it would take along only because they happen to be installed."""

from __future__ import annotations

import sys

PASSED_OVER = ("matplotlib", "pandas", "sklearn")
"""Keras looks for these to draw pictures, to take data frames and to be a scikit-learn estimator; nothing here asks it
to. They double the time of the import and hold 110 MB in every process that trains (Keras 3.15)."""


def import_keras() -> None:
    """Imports TensorFlow and Keras, to which `PASSED_OVER` are not installed; to everybody else, they are.

    To be called before anything else imports TensorFlow; after that it changes nothing.
    """
    if "tensorflow" in sys.modules:
        return
    hidden = [name for name in PASSED_OVER if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python is told: there is none
    try:
        import tensorflow  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
