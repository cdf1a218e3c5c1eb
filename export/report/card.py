"""``model_card.md``: where the model comes from, on whose data, how good it is, and what nobody measured.

Whoever trained the model says what is known in `TrainingFacts`; what is left empty is printed as unknown. The
measurements are the report's.

Source: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from export.report.facts import TrainingFacts
from export.report.report import BundleReport, Variant, metric_lines, points, told
from fl_mobile.tasks import task_row

UNKNOWN = "unknown: whoever exported this did not say"
_SEEN = {None: "unknown", True: "no", False: "yes"}


def to_card(report: BundleReport) -> str:
    """Returns ``model_card.md`` of the bundle that ``report`` measured; the same report gives the same text."""
    facts, serving = report.training, report.serving
    return "\n".join(
        [
            f"# Model card: {facts.model or 'unnamed model'}",
            "",
            f"{serving.parameters:,} parameters, weights SHA-256 `{serving.weights_sha256}`.",
            f"Licence: {facts.license or UNKNOWN}.",
            "Inputs, outputs and classes: `report.md`. SHA-256 of every file: `manifest.json`.",
            *(_section("Task", _task(report.task)) if report.task else ()),
            *_section("Training", _training(facts)),
            *_section("Data statement", _data(facts)),
            *_section("Privacy", [f"{facts.privacy or UNKNOWN}."]),
            *_section("Accuracy", _accuracy(report)),
            *_section("Calibration and tuning", _calibration(report)),
            *_section("Make it again", _origin(report)),
            "",
        ]
    )


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield from lines


def _task(task: Mapping[str, Any]) -> list[str]:
    source, answer = task["input"], task["output"]
    shape, given = "×".join(map(str, source["shape"])), source["holds"]
    if given == "tokens" and "vocabulary" in source:
        given = f"{source['of']} by their numbers in `{source['vocabulary']}`, all others {source['unknown']}"
    elif given == "recording":
        rate = "at a rate that nobody told" if source["hertz"] is None else f"at {source['hertz']:g} Hz"
        channels = ", ".join(f"{each['name']} in {each['unit']}" for each in source["channels"]) or "channels unnamed"
        given = f"windows of {source['window']} samples {rate}, one every {source['hop']}: {channels}"
    elif columns := source.get("columns"):
        given = f"in this order: {', '.join(columns)}"
    names = answer.get("names")
    told_as = "the next token at every step" if answer.get("next") else answer["holds"]
    return [
        f"- what: {task['task']}, {task_row(task['task']).summary}",
        f"- given: `{source['name']}` {shape}, {given}",
        f"- told: `{answer['name']}` {'×'.join(map(str, answer['shape']))}, {told_as}"
        + (f", named in `{names}`" if names else ""),
        *(
            f"- {side} are scaled inside the graph by means and spreads that `task.json` has"
            for side, part in (("inputs", source), ("outputs", answer))
            if "scaling" in part
        ),
        "- for programs: `task.json`; no Python is needed to use it",
    ]


def _training(facts: TrainingFacts) -> list[str]:
    if facts.rounds == 0:
        return ["None: these are first weights, not a trained model."]
    return _bullets(("rounds", facts.rounds), ("devices", facts.devices), ("method", facts.method))


def _data(facts: TrainingFacts) -> list[str]:
    if facts.rounds == 0:
        return ["No training data was used."]
    return _bullets(
        ("training data", facts.dataset),
        ("source", facts.data_source),
        ("fingerprint", facts.data_fingerprint),
        ("training examples", facts.train_examples),
        ("spread over devices", facts.partition),
    )


def _bullets(*rows: tuple[str, str | int | None]) -> list[str]:
    texts = {name: f"{value:,}" if isinstance(value, int) else value for name, value in rows}
    return [f"- {name}: {text or UNKNOWN}" for name, text in texts.items()]


def _accuracy(report: BundleReport) -> list[str]:
    return [
        f"Measured on {report.samples:,} held-out examples, SHA-256 `{report.held_out_sha256}`. Whether the model saw"
        f" them in training: {_SEEN[report.training.held_out_is_new]}. On other data, for single groups of people or"
        " places, on a phone: not measured.",
        "",
        "| file | accuracy | difference to Keras | same class as Keras | bytes |",
        "|---|--:|--:|--:|--:|",
        f"| Keras model | {told(report.keras_accuracy, '.2%')} | | | |",
        *(_row(variant) for variant in report.variants),
        *metric_lines(report.variants),
    ]


def _row(variant: Variant) -> str:
    parity = variant.parity
    return (
        f"| `{variant.file}` | {told(parity.accuracy, '.2%')} | {points(parity.accuracy_diff)}"
        f" | {told(parity.argmax_agreement, '.2%')} | {variant.bytes:,} |"
    )


def _calibration(report: BundleReport) -> list[str]:
    calibrated = (
        f"Ranges of 8-bit activations were measured on {report.calibration_frames} examples, SHA-256"
        f" `{report.calibration_sha256}`."
        if report.calibration_sha256
        else "No recipe was calibrated."
    )
    return [calibrated, *(tuning.sentence() for tuning in report.tunings)]


def _origin(report: BundleReport) -> list[str]:
    facts = report.training
    return _bullets(
        ("command", f"`{facts.command}`" if facts.command else ""),
        ("experiment SHA-256", f"`{facts.experiment_sha256}`" if facts.experiment_sha256 else ""),
        ("recipes", ", ".join(variant.recipe for variant in report.variants)),
        ("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items())),
    )
