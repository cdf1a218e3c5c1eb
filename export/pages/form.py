"""The form: a field for every feature of a table, and classes, tags or numbers in their own units."""

from __future__ import annotations

from typing import Any

from export.bundles.folder import Bundle
from export.bundles.phone_task import FEATURES, lines_of
from export.pages.told import about, task_of, with_golden

TASKS_HERE = ("classification", "multi-label", "regression")


def refused(bundle: Bundle) -> str:
    """Returns why a bundle is not for the form: it takes a row of features and tells classes or numbers; or ""."""
    told = task_of(bundle)
    if told is None or told["input"]["holds"] != FEATURES or told["task"] not in TASKS_HERE:
        return "the form needs a model of a row of features" + (
            "" if told is None else f"; this one is of {told['task']}"
        )
    if len(told["input"]["shape"]) != 1 or len(told["output"]["shape"]) != 1:
        return f"the form needs rows, this model takes {told['input']['shape']} and gives {told['output']['shape']}"
    return ""


def described(bundle: Bundle) -> dict[str, Any]:
    """Returns what the form is told: columns with mean and spread, names of what is told, and golden examples."""
    told = task_of(bundle)
    assert told is not None
    source, answer = told["input"], told["output"]
    names = lines_of(bundle.files[answer["names"]]) if "names" in answer else numbered("number", answer["shape"][0])
    table = {
        "columns": source.get("columns") or numbered("feature", source["shape"][0]),
        "scaling": source.get("scaling"),
        "names": names,
        "holds": answer["holds"],
    }
    return {**with_golden(bundle, about(bundle)), "table": table}


def numbered(what: str, count: int) -> list[str]:
    """Returns names for what has none.

    >>> numbered("feature", 2)
    ['feature 1', 'feature 2']
    """
    return [f"{what} {place}" for place in range(1, count + 1)]
