"""What an exception of Keras or TensorFlow comes down to, in one line: layer, operation, reason."""

from __future__ import annotations

import re
from typing import Any

from fl_mobile.models.private_api import flatten_layers

_MOST = 240


def where(model: Any, text: str) -> str:
    """Returns ``" in layer 'x' (Gather)"``, as far as the text of an error names a node of the graph or a layer."""
    if model is None:
        return ""
    kinds = {layer.name: type(layer).__name__ for layer in flatten_layers(model, include_self=False)}
    for node in [*re.findall(r"node ([\w./-]+)", text), *re.findall(r"([\w.-]+(?:/[\w.-]+)+)", text)]:
        parts = node.split("/")
        # TensorFlow numbers a name scope that it meets again.
        named = [name for part in parts if (name := part if part in kinds else re.sub(r"_\d+$", "", part)) in kinds]
        if named:
            return f" in layer '{named[-1]}' ({kinds[named[-1]]}), operation {parts[-1]}"
    called = re.search(r"calling (?:layer )?['\"]?([\w]+)(?:\.call\(\)|['\"] \(type)", text)
    if called:
        layers = [name for name, kind in kinds.items() if called[1] in (kind, name)]
        return f" in layer '{layers[0]}' ({kinds[layers[0]]})" if len(layers) == 1 else f" in a layer {called[1]}"
    return ""


def reason_of(error: BaseException) -> str:
    """Returns the line of an error's text that says why, without colours, node names and stack traces."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    lines = [re.sub(r"^\s*\(\d+\)\s*[A-Z_ ]+:\s*", "", line).strip() for line in text.splitlines()]
    if "in user code:" in text:  # AutoGraph's frames; the error itself is named in the last line that has one
        lines = [x for x in lines if re.match(r"\w*(Error|Exception|Exit): ", x)][-1:] or lines
    noise = (
        "Exception encountered",
        "in user code:",
        "Detected at node",
        "File ",
        "Arguments received",
        "Graph execution error",
        "•",
    )
    telling = [x for x in lines if x and not x.startswith(noise) and not re.fullmatch(r"\d+ root error.*", x)]
    short = re.sub(r"\s*\[\[\{?\{?node.*", "", telling[0]) if telling else ""
    short = re.sub(r"\{\{\w+ [^}]*\}\}\s*", "", short).strip()
    return (short or type(error).__name__)[:_MOST]
