"""What MODEL is on a command line: a run folder, a file or a name; asked here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_sim.experiment.toml import parse_experiment, read_experiment
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.keras_file import HDF5_SUFFIXES
from fl_mobile.errors import ConfigError
from fl_mobile.local.compiled import compiled_in_file

if TYPE_CHECKING:
    from device_sim.datasets import Dataset
    from device_sim.experiment.experiment import Experiment
    from export.report.facts import TrainingFacts

RUN, FILE, NAME = "run", "file", "name"


@dataclass(frozen=True)
class WhichModel:
    """A model as it was named.

    Attributes:
        text: What was typed.
        imports: Modules of the user's own layers, for files.
    """

    text: str
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.imports and self.kind != FILE:
            raise ConfigError(f"--import names layers of a model file, and {self.text} is none. Leave it out.")

    @property
    def kind(self) -> str:
        """``"run"``, ``"file"`` or ``"name"``: a row of the model table or ``package.module:function``."""
        if self.is_run:
            return RUN
        path = Path(self.text)
        return FILE if path.suffix in (".keras", *HDF5_SUFFIXES) or "/" in self.text or path.is_file() else NAME

    @property
    def is_run(self) -> bool:
        """Whether it is the folder of a run."""
        return RunFolder(Path(self.text)).experiment.exists()

    def experiment(self, dataset: str | None, changes: Sequence[str]) -> Experiment:
        """Returns where the data comes from and, for a named model, what it is built like.

        Raises:
            ConfigError: No dataset is known.
        """
        named = [f"data.dataset={dataset}"] if dataset else []
        if self.kind == RUN:
            reopen(Path(self.text))
            return read_experiment(RunFolder(Path(self.text)).experiment, [*named, *changes])
        if not named and not any(change.startswith("data.dataset=") for change in changes):
            raise ConfigError(
                "--dataset is missing: a bundle is only written after every artifact was compared with Keras on"
                " held-out examples. Name the dataset the model was trained for; `fl-mobile datasets` lists them. A"
                " model file that none of them fits takes your own arrays: --frames FILE.npz."
            )
        return parse_experiment("", [*named, *([] if self.kind == FILE else [f"model.name={self.text}"]), *changes])

    def open(self, experiment: Experiment, data: Dataset) -> Any:
        """Returns the Keras model.

        Raises:
            ConfigError: A run whose devices kept tensors to themselves.
            ModelError: It cannot be read or built.
        """
        from device_sim.federation.federation import build_of
        from device_sim.run.keras_file import read_model, read_run_model
        from fl_mobile.client.private import NONE

        if self.kind == FILE:
            return read_model(Path(self.text), self.imports)
        if self.kind == NAME:
            return build_of(experiment, data)()
        if experiment.personal.private != NONE:
            raise ConfigError(
                f"{self.text}: personal.private '{experiment.personal.private}' left tensors on the devices that"
                " trained them; the server's model holds their first values. Nothing worth exporting can be made of it."
            )
        return read_run_model(RunFolder(Path(self.text)).model, experiment)

    def loss(self, experiment: Experiment, data: Dataset) -> str:
        """Returns what the model was trained with: a run says it, a file where its author compiled it; else empty."""
        if self.kind == RUN:
            return experiment.train.plan(0, from_logits=True, task=data.task).loss
        compiled = compiled_in_file(Path(self.text)) if self.kind == FILE else None
        return "" if compiled is None else compiled.loss

    def facts(self, experiment: Experiment, license: str) -> TrainingFacts:
        """Returns what is known about it: much of a run, its name of a row of the table, else nothing."""
        from device_sim.run.facts import facts_of_first_weights, facts_of_run_folder
        from device_sim.run.summary import read_summary
        from export.report.facts import TrainingFacts

        if self.kind == RUN:
            folder = RunFolder(Path(self.text))
            return facts_of_run_folder(folder, read_summary(folder), experiment, license=license)
        if self.kind == FILE:
            return TrainingFacts(model=Path(self.text).stem, license=license)
        return facts_of_first_weights(experiment, license=license)
