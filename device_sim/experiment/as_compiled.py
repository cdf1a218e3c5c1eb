"""What [train] leaves open and the author of a model said: its ``compile()`` names loss, optimizer and step size."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from device_sim.datasets.scaling import FEDERATED
from device_sim.experiment.experiment import Experiment
from fl_mobile.errors import ConfigError
from fl_mobile.local.compiled import Compiled

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMPILED = (
    *("train.loss", "train.label-smoothing", "train.optimizer", "train.learning-rate", "train.momentum"),
    "train.clip-gradient-norm",
)
"""Keys that a model's ``compile()`` says where nobody wrote them."""


def left_open(text: str, changes: Sequence[str] = ()) -> frozenset[str]:
    """Returns the keys of `COMPILED` that neither the TOML text of an experiment nor its changes write.

    >>> sorted(left_open("[train]\\nloss = 'mse'", ["train.optimizer=adam"]))
    ['train.clip-gradient-norm', 'train.label-smoothing', 'train.learning-rate', 'train.momentum']
    """
    written = {f"train.{key}" for key in tomllib.loads(text).get("train", {})}
    return frozenset(COMPILED) - written - {change.partition("=")[0].strip() for change in changes}


def like(experiment: Experiment, stored: Experiment, open_keys: frozenset[str]) -> Experiment:
    """Returns the experiment with what it leaves open as a run that is to go on has it: its model had said it then,
    or its devices' noised sums had.
    """
    values = {_field(key): getattr(stored.train, _field(key)) for key in open_keys}
    data = experiment.data
    if stored.privacy.on and data.standardize == stored.data.standardize == FEDERATED and not data.scaling:
        data = replace(data, scaling=stored.data.scaling)
    return replace(experiment, train=replace(experiment.train, **values), data=data)


def as_compiled(experiment: Experiment, compiled: Compiled, open_keys: frozenset[str]) -> tuple[Experiment, str]:
    """Returns the experiment as the model was compiled, and a line that says what of that was taken and what was not.

    What the experiment writes stays, and so does what would not go together with it.

    Args:
        open_keys: Keys of `COMPILED` that nobody wrote.
    """
    taken: list[str] = []
    left = list(compiled.left)
    for part in (_of_loss(compiled), _of_optimizer(experiment, compiled, open_keys)):
        wanted = {key: value for key, value in part.items() if key in open_keys}
        left += [f"{_words(key)} {value} (the experiment says {_now(experiment, key)})" for key, value in part.items()
                 if key not in open_keys and value != _now(experiment, key)]  # fmt: skip
        try:
            experiment = _with(experiment, wanted)
        except ConfigError as error:
            left += [f"{' '.join(map(str, wanted.values()))} ({error})"]
        else:
            taken += [f"{key} {value}" for key, value in wanted.items()]
    said = [f"{', '.join(taken)} taken" if taken else "", f"not taken: {'; '.join(left)}" if left else ""]
    return experiment, f"the model's own compile(): {'; '.join(filter(None, said))}" if taken or left else ""


def of_outputs(compiled: Compiled | None, *, from_logits: bool) -> str:
    """Returns a clause where a model was compiled for other outputs than it has; those it has are what trains."""
    if compiled is None or compiled.from_logits in (None, from_logits):
        return ""
    found = "logits" if from_logits else "probabilities"
    return f"; its loss has from_logits {compiled.from_logits}, the model gives {found}: trained as such"


def _of_loss(compiled: Compiled) -> dict[str, Any]:
    smoothing = {"train.label-smoothing": compiled.label_smoothing} if compiled.label_smoothing else {}
    return {"train.loss": compiled.loss, **smoothing} if compiled.loss else {}


def _of_optimizer(experiment: Experiment, compiled: Compiled, open_keys: frozenset[str]) -> dict[str, Any]:
    """Returns what the optimizer says; a learning rate is that of its optimizer and of no other."""
    if not compiled.optimizer:
        return {}
    found: dict[str, Any] = {"train.optimizer": compiled.optimizer}
    if "train.optimizer" not in open_keys and experiment.train.optimizer != compiled.optimizer:
        return found
    if compiled.learning_rate:
        found["train.learning-rate"] = compiled.learning_rate
    if compiled.optimizer == "momentum":
        found["train.momentum"] = compiled.momentum
    if compiled.clip_gradient_norm:
        found["train.clip-gradient-norm"] = compiled.clip_gradient_norm
    return found


def _with(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    if not values:
        return experiment
    return replace(experiment, train=replace(experiment.train, **{_field(key): v for key, v in values.items()}))


def _now(experiment: Experiment, key: str) -> Any:
    return getattr(experiment.train, _field(key))


def _field(key: str) -> str:
    return key.rpartition(".")[2].replace("-", "_")


def _words(key: str) -> str:
    return key.rpartition(".")[2].replace("-", " ")
