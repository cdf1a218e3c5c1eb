"""What the classes of a model's outputs are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from export.model.serving import Serving
from fl_mobile.errors import ExportError


def labels_by_output(
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None, serving: Serving, with_classes: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Returns the class names of every output.

    Args:
        labels: As ``export_model`` takes them.
        serving: The model's contract.
        with_classes: Names of the outputs that have held-out classes; others can be named too.

    Raises:
        ExportError: They are not one name of one printable line for each class.
    """
    widths = {end.name: end.num_classes for end in serving.outputs if end.num_classes}
    wanted = [name for name in widths if name in with_classes]
    if not wanted and not labels:
        return {}
    if not isinstance(labels, Mapping) and labels is not None and len(serving.outputs) == 1:
        labels = dict.fromkeys(widths, labels)
    if not isinstance(labels, Mapping) or not labels.keys() <= widths.keys() or not labels.keys() >= set(wanted):
        given = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else type(labels).__name__
        raise ExportError(
            f"labels: expected a mapping with the class names of {', '.join(wanted or widths) or 'no output'}, the"
            f" outputs that are classes, got {given}"
        )
    outputs = {name: count for name, count in widths.items() if name in labels}
    for output, classes in outputs.items():
        _check_labels(labels[output], classes)
    return {output: tuple(labels[output]) for output in outputs}


def _check_labels(labels: Sequence[str], classes: int) -> None:
    if isinstance(labels, str) or len(labels) != classes:
        raise ExportError(f"labels: expected {classes} names, one per class of the model, got {len(labels)}")
    bad = [label for label in labels if not isinstance(label, str) or not label.strip() or not label.isprintable()]
    if bad:
        raise ExportError(f"labels: expected non-empty names of one printable line, got {bad[0]!r}")
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        raise ExportError(f"labels: each name once, got {', '.join(twice)} more than once")
