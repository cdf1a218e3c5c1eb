"""The sections of an experiment about single devices, and which algorithms go with the rest of an experiment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from device_sim.engines import ENGINES
from device_sim.experiment.keys import key, positive
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.algorithms import Algorithm
from fl_mobile.client.private import NONE, PRIVATE
from fl_mobile.codecs import Codec, contracting
from fl_mobile.errors import ConfigError, check_known
from fl_mobile.records import FitPlan

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


def check_personal(
    personal: Personal, evaluation: Evaluation, plan: FitPlan, recipes: Collection[str], engine: str
) -> None:
    """Raises `ConfigError` if the rest of the experiment rules out what [personal] asks for.

    Args:
        plan: Local training as the algorithm wants it.
        recipes: TFLite variants to be exported.
        engine: Row of `ENGINES`.
    """
    if personal.method != NONE and not evaluation.device_test_fraction:
        raise ConfigError(
            f"personal.method '{personal.method}' needs evaluation.device-test-fraction above 0, e.g. 0.2: only on"
            " a device's own held-out examples does it show"
        )
    able = [name for name, row in ENGINES.items() if row.abilities.holds_still]
    if personal.method in (ONLY_HEAD, DITTO) and engine not in able:
        raise ConfigError(f"personal.method '{personal.method}' needs engine.name {' or '.join(able)}")
    if personal.private != NONE and plan.proximal_mu:
        raise ConfigError(
            "personal.private cannot be used with an algorithm that pulls devices to the server's model, because the"
            " server has no private tensors to pull to; use fedavg, scaffold or fednova"
        )
    if personal.private != NONE and recipes:
        raise ConfigError(
            "output.recipes must be [] with personal.private: the server never sees the private tensors, so its model"
            " is not one that any device uses, and there is nothing worth exporting"
        )


def check_algorithm(algorithm: Algorithm, optimizer: str, memory: str, mode: str) -> None:
    """Raises `ConfigError` if an algorithm's derivation does not hold for the rest of the experiment.

    Args:
        optimizer: Of local training.
        memory: Of the upload codec.
        mode: Of the clock.
    """
    name = algorithm.name
    if optimizer not in algorithm.optimizers:
        raise ConfigError(
            f"server.algorithm '{name}' takes an update for a sum of gradients, which train.optimizer '{optimizer}'"
            f" breaks; use {' or '.join(algorithm.optimizers)}"
        )
    if (algorithm.per_step or algorithm.device) and memory != "none":
        raise ConfigError(
            f"upload.memory '{memory}' cannot be used with server.algorithm '{name}', which needs each packet to hold"
            " the update of its own round alone; use none"
        )
    if algorithm.device and mode == "asynchronous":
        raise ConfigError(
            f"server.algorithm '{name}' cannot be used with clock.mode asynchronous: what a device keeps and what the"
            " server holds would belong to different versions"
        )


def check_aggregation(name: str, algorithm: Algorithm, memory: str, mode: str) -> None:
    """Raises `ConfigError` if the rest of the experiment needs the mean of the updates and gets something else.

    Args:
        name: Row of `AGGREGATORS`.
        memory: Of the upload codec.
        mode: Of the clock.
    """
    if AGGREGATORS[name].mean:
        return
    if algorithm.per_step or algorithm.device:
        raise ConfigError(
            f"server.aggregation '{name}' cannot be used with server.algorithm '{algorithm.name}', which needs the mean"
            " of the updates; use mean"
        )
    if memory != "none":
        raise ConfigError(
            f"server.aggregation '{name}' cannot be used with upload.memory '{memory}', which needs the mean of the"
            " updates: what one round leaves out the next makes up for. Use mean, or upload.memory none"
        )
    if mode == "asynchronous":
        raise ConfigError(
            f"server.aggregation '{name}' cannot be used with clock.mode asynchronous: late updates weigh less there,"
            " and this rule gives all the same say; use mean"
        )


def check_codec(algorithm: Algorithm, codec: Codec) -> None:
    """Raises `ConfigError` if what clients keep under an algorithm would grow with what the upload codec loses."""
    if algorithm.device and not contracting(codec).contracts:
        raise ConfigError(
            f"upload.codec '{codec.name}' cannot be used with server.algorithm '{algorithm.name}': it adds more noise"
            " than there is update, and what clients keep would take it up in every round; use ecsq, q4 to q8, or"
            " topk:0.05+q8"
        )
