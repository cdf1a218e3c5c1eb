"""What only the trainer of a model knows: the part of a model card that no measurement gives."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fl_mobile.errors import ExportError


@dataclass(frozen=True)
class TrainingFacts:
    """What is known about how a model came about; an empty text or None is unknown, never guessed.

    Attributes:
        model: Name of the model.
        license: Of the exported weights, e.g. ``"Apache-2.0"``.
        rounds: Federated rounds; 0 is a model that was never trained.
        devices: How many took part and of what kind, e.g. ``"100, simulated"``.
        method: Algorithm and how updates travelled.
        dataset: Name of the training data.
        data_source: Where it comes from.
        data_fingerprint: Its identity.
        train_examples: How many examples the devices held together.
        partition: How the examples were spread over devices.
        privacy: What bounds what the weights reveal: ``"No differential privacy …"`` or epsilon and delta with their
            unit.
        experiment_sha256: Of the resolved experiment.
        command: What makes the model or bundle again; folders and keys of the machine left out.
        held_out_is_new: Whether the report's held-out examples took no part in training.
    """

    model: str = ""
    license: str = ""
    rounds: int | None = None
    devices: str = ""
    method: str = ""
    dataset: str = ""
    data_source: str = ""
    data_fingerprint: str = ""
    train_examples: int | None = None
    partition: str = ""
    privacy: str = ""
    experiment_sha256: str = ""
    command: str = ""
    held_out_is_new: bool | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and value and not value.isprintable():
                raise ExportError(f"model card: {field.name} must be one line of printable text, got {value!r}")
            if isinstance(value, int) and value < 0:
                raise ExportError(f"model card: {field.name} must be 0 or more, got {value}")


NOTHING_KNOWN = TrainingFacts()
