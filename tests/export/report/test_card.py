"""A model card says what is known, and of the rest that it is not."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from export.report.card import UNKNOWN
from export.report.facts import NOTHING_KNOWN, TrainingFacts
from fl_mobile.errors import ExportError

pytestmark = pytest.mark.tf


def test_nothing_is_invented_for_a_model_of_unknown_origin(whole_bundle: Path) -> None:
    card = (whole_bundle / "model_card.md").read_text()
    assert "# Model card: unnamed model" in card
    for line in ("Licence:", "- rounds:", "- devices:", "- training data:", "- training examples:", "- command:"):
        assert f"{line} {UNKNOWN}" in card, line
    assert f"## Privacy\n\n{UNKNOWN}." in card
    assert "Whether the model saw them in training: unknown" in card


def test_measurements_are_those_of_the_report(whole_bundle: Path) -> None:
    card = (whole_bundle / "model_card.md").read_text()
    report = json.loads((whole_bundle / "report.json").read_text())
    for variant in report["variants"]:
        assert f"| `{variant['file']}` | {variant['accuracy']:.2%} |" in card
    assert report["calibration"]["sha256"] in card
    assert report["held_out"]["sha256"] in card
    assert report["model"]["weights_sha256"] in card


@pytest.mark.parametrize("name", [f.name for f in fields(TrainingFacts) if f.type == "str"])
def test_a_fact_is_one_line_of_text(name: str) -> None:
    for value in ("two\nlines", "\x1b[2J", "tab\t"):
        with pytest.raises(ExportError, match=f"model card: {name} must be one line"):
            TrainingFacts(**{name: value})


def test_counts_are_not_negative() -> None:
    with pytest.raises(ExportError, match="rounds must be 0 or more"):
        TrainingFacts(rounds=-1)
    assert NOTHING_KNOWN.rounds is None
