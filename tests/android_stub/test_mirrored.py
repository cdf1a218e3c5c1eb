"""What Java lists by name is what Python has: a field or row that is added here must be known there, or refused."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fl_mobile.agreement import MEMORIES
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.remote import AGAIN
from fl_mobile.codecs import CODECS, PRESETS, STAGES, parse_codec
from fl_mobile.local.optimizers import OPTIMIZERS
from fl_mobile.records import FitPlan
from fl_mobile.tasks import TASKS
from fl_mobile.wire.pruning_mask import PruningPlan
from tests.android_stub.vectors import known

SOURCES = Path(__file__).parents[2] / "android_stub" / "core" / "src" / "main" / "java" / "flmobile"


def texts(file: str) -> set[str]:
    """Returns every text that a source file writes out."""
    return set(re.findall(r'"([^"\n]*)"', (SOURCES / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("client/FitPlan.java", {field.name for field in fields(FitPlan)}),
        ("wire/Agreement.java", {*ALGORITHMS, *MEMORIES}),
        ("wire/Pruning.java", {field.name for field in fields(PruningPlan)}),
    ],
)
def test_java_knows_every_name(file: str, names: set[str]) -> None:
    assert names - texts(file) == set()


def test_java_knows_every_codec() -> None:
    every = {parse_codec(text).name for text in (*(row.example for row in (STAGES | CODECS).values()), *PRESETS)}
    assert every <= set(known())


def test_java_tries_the_same_answers_again() -> None:
    told = re.search(r"AGAIN = Arrays\.asList\(([^)]*)\)", (SOURCES / "client/Remote.java").read_text(encoding="utf-8"))
    assert told is not None
    assert tuple(map(int, told.group(1).split(","))) == AGAIN


def test_what_java_counts_local_steps_by_is_every_optimizer() -> None:
    """`FitPlan.localSteps` knows momentum; of all others a step counts once."""
    once = {name for name, row in OPTIMIZERS.items() if row.sgd_steps(7, 0.9) == 7.0}
    assert OPTIMIZERS.keys() - once == {"momentum"}
    assert "classification" in TASKS
