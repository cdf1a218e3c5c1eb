"""``fl-mobile doctor``: what is installed here, what can run artifacts, what is cached, what an extra would add."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables, size

ADDS = {
    "demo": "datasets mnist-5k, digits and image-folder",
    "privacy": "[privacy]: the ledger of ε",
    "search": "sweep SWEEP.toml",
    "serve": "the coordinator: serve",
    "postgres": "its tables in PostgreSQL: serve --database",
    "s3": "its packets and models in an object store: serve --blobs",
    "ray": "engine ray: several machines",
    "tflite-runtime": "the old phone runtime, in an environment of its own (numpy < 2)",
    "docs": "make docs: this documentation as a site",
    "dev": "what the tests need",
}
"""Extra → what it adds; `pyproject.toml` says with which packages."""


LOOPS = {
    "built": "made ahead of time, nothing is compiled in a run",
    "cached": "of earlier runs; what they did not call is compiled when it is first called",
    "none yet": "the first run compiles them, a minute",
    "plain Python": "without numba; the same bytes, far slower",
}
"""What `fl_mobile.kernels.compiled.which_code` answers → what that means."""


def doctor(output: FormatOption = Format.TEXT) -> None:
    """Say which versions, runtimes, caches and extras are here; changes nothing, loads no TensorFlow, ends with 0.

    Examples:
      fl-mobile doctor
      fl-mobile doctor --format json
    """
    found = examine()
    if output is Format.JSON:
        print_json(found)
        return
    print(f"fl-mobile {found['fl_mobile']}, Python {found['python']}, {found['platform']}, {found['processors']} CPUs")
    packages = [(p["name"], p["wants"], p["version"] or "missing", _fit(p)) for p in found["packages"]]
    runtimes = [(r["name"], "yes" if r["here"] else "no", r["what"], r["reason"]) for r in found["runtimes"]]
    caches = [(c["what"], c["path"], size(c["bytes"]) if c["bytes"] else "empty") for c in found["caches"]]
    extras = [(e["name"], "yes" if e["here"] else "no", e["adds"], ", ".join(e["missing"])) for e in found["extras"]]
    print_tables(
        [
            make_table("Packages", ("package", "wanted", "here", ""), packages),
            make_table("Runtimes", ("runtime", "here", "what", "why not"), runtimes),
            make_table("Extras: pip install 'fl-mobile[NAME]'", ("extra", "here", "adds", "missing"), extras),
            make_table("Caches", ("what", "where", "size"), caches),
        ]
    )
    print(f"Compiled loops: {found['loops']['code']}: {found['loops']['means']}")
    for problem in found["problems"]:
        print(f"! {problem}")


def examine() -> dict[str, Any]:
    """Returns all that `doctor` tells, as one JSON value."""
    import fl_mobile

    packages, extras, problems = _packages()
    for package in packages:
        if not package["fits"]:
            here = package["version"] or "is missing"
            problems.append(f"{package['name']}: wanted {package['wants'] or 'any version'}, here {here}")
    return {
        "fl_mobile": fl_mobile.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processors": os.cpu_count(),
        "packages": packages,
        "runtimes": _runtimes(problems),
        "extras": extras,
        "caches": _caches(),
        "loops": _loops(problems),
        "problems": problems,
    }


def _loops(problems: list[str]) -> dict[str, str]:
    """Returns which code of the codec's inner loops runs here; a numba that is installed and broken is a problem."""
    try:
        from fl_mobile.kernels.compiled import built_set, which_code

        code = which_code()
        file = built_set() if code == "built" else None
    except Exception as error:
        problems.append(f"numba cannot be used: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return {"code": "none", "means": "", "file": ""}
    return {"code": code, "means": LOOPS[code], "file": str(file or "")}


def _runtimes(problems: list[str]) -> list[dict[str, Any]]:
    """Returns what runs artifacts here; what keeps the table itself from loading, e.g. a broken NumPy, is a problem."""
    try:
        from export.runtimes import RUNTIMES, missing_runtimes

        missing = missing_runtimes()
    except Exception as error:  # a package that is installed and broken may raise anything
        problems.append(
            f"runtimes cannot be looked at: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        )
        return []
    return [
        {"name": name, "here": name not in missing, "what": row.what, "reason": missing.get(name, "")}
        for name, row in RUNTIMES.items()
    ]


def _packages() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Returns what fl-mobile needs, what its extras would add, and what is wrong with the installation itself."""
    from packaging.requirements import Requirement

    try:
        told = [Requirement(line) for line in metadata.requires("fl-mobile") or ()]
    except metadata.PackageNotFoundError:
        return [], [], ["fl-mobile runs from a checkout and is not installed: pip install -e ."]
    needed = [_package(r) for r in told if r.marker is None or r.marker.evaluate({"extra": ""})]
    extras = []
    for name in dict.fromkeys([*ADDS, *(metadata.metadata("fl-mobile").get_all("Provides-Extra") or ())]):
        own = [
            r for r in told if r.marker and not r.marker.evaluate({"extra": ""}) and r.marker.evaluate({"extra": name})
        ]
        missing = [p["name"] for p in map(_package, own) if not p["fits"]]
        extras.append({"name": name, "adds": ADDS.get(name, ""), "here": bool(own) and not missing, "missing": missing})
    return needed, extras, []


def _package(requirement: Any) -> dict[str, Any]:
    try:
        version: str | None = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = None
    fits = version is not None and requirement.specifier.contains(version, prereleases=True)
    return {"name": requirement.name, "wants": str(requirement.specifier), "version": version, "fits": fits}


def _fit(package: dict[str, Any]) -> str:
    return "" if package["fits"] else "does not fit"


def _caches() -> list[dict[str, Any]]:
    """Returns the folders that fl-mobile and Keras keep files in between runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fl-mobile"
    keras = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    beside = Path(sys.modules["fl_mobile"].__path__[0]) / "__pycache__"
    told = (("compiled loops, LiteRT.js", home), ("datasets and weights of Keras", keras), ("compiled code", beside))
    return [{"what": what, "path": str(path), "bytes": _bytes(path.rglob("*"))} for what, path in told]


def _bytes(files: Iterable[Path]) -> int:
    """Returns how much there is; a file that goes while we look counts nothing."""
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return total
