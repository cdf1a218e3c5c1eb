"""The sections of an experiment about single devices."""

from __future__ import annotations

from dataclasses import dataclass

from device_sim.experiment.keys import key, positive
from fl_mobile.client.private import NONE, PRIVATE
from fl_mobile.errors import ConfigError, check_known

FINE_TUNE, ONLY_HEAD, DITTO = "fine-tune", "head", "ditto"
METHODS = (NONE, FINE_TUNE, ONLY_HEAD, DITTO)


@dataclass(frozen=True)
class Personal:
    """[personal]: what a device has of its own."""

    private: str = key(NONE, f"{' | '.join(PRIVATE)} | a pattern of paths such as block_3/*: tensors that never travel")
    method: str = key(NONE, f"{' | '.join(METHODS)}: how each device makes the model its own; needs [evaluation]")
    epochs: int = key(1, "passes over a device's examples for that: once after the run, under ditto in every round")
    learning_rate: float = key(0.0, "and its step size; 0 is that of train")
    mu: float = key(0.1, "ditto: how strongly the personal model is pulled to the global one")

    def __post_init__(self) -> None:
        check_known("personal.method", self.method, METHODS)
        positive("personal", epochs=self.epochs, mu=self.mu)
        if self.learning_rate < 0:
            raise ConfigError(f"personal.learning-rate must be ≥ 0, got {self.learning_rate}")
        if self.method == DITTO and self.private != NONE:
            raise ConfigError("personal.private cannot be used with personal.method ditto: all of its model is private")


@dataclass(frozen=True)
class Evaluation:
    """[evaluation]: accuracy on single devices, each on examples of its own."""

    device_test_fraction: float = key(0.0, "held out on every device, stratified where it can be; 0 is off")
    interval: int = key(1, "rounds between evaluations of the global model on the test set; the last is one always")
    every: int = key(0, "rounds between evaluations on devices; 0 evaluates after the last round only")
    devices: int = key(500, "at most so many are evaluated: a seeded sample, the same each time")

    def __post_init__(self) -> None:
        if not 0 <= self.device_test_fraction < 1:
            raise ConfigError(f"evaluation.device-test-fraction must be in [0, 1), got {self.device_test_fraction}")
        positive("evaluation", interval=self.interval)
        if self.every < 0:
            raise ConfigError(f"evaluation.every must be ≥ 0, got {self.every}")
        if self.every and not self.device_test_fraction:
            raise ConfigError("evaluation.every needs evaluation.device-test-fraction above 0, e.g. 0.2")
        positive("evaluation", devices=self.devices)
