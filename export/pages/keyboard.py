"""The keyboard: type, and the model goes on with three suggestions."""

from __future__ import annotations

from typing import Any

from export.bundles.folder import Bundle
from export.bundles.phone_task import TOKENS, lines_of
from export.pages.told import about, task_of, with_golden


def refused(bundle: Bundle) -> str:
    """Returns why a bundle is not for the keyboard page: it answers the token after every token; or ""."""
    told = task_of(bundle)
    if told is None or told["input"]["holds"] != TOKENS or not told["output"].get("next"):
        return (
            "the keyboard page needs a model that tells the next token of a vocabulary, which task.json names"
            f"{'' if told is None else '; this one is of task ' + told['task']}"
        )
    return ""


def described(bundle: Bundle) -> dict[str, Any]:
    """Returns what the keyboard page is told: the vocabulary, and golden examples."""
    told = task_of(bundle)
    assert told is not None
    source = told["input"]
    vocabulary = {
        "tokens": lines_of(bundle.files[source["vocabulary"]]),
        "of": source["of"],
        "unknown": source["unknown"],
    }
    return {**with_golden(bundle, about(bundle)), "vocabulary": vocabulary}
