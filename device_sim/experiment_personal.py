"""The sections of an experiment about single devices, and which algorithms go with the rest of an experiment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from device_sim.experiment_keys import key
from device_sim.private import NONE, PRIVATE
from fl_mobile.algorithms import Algorithm
from fl_mobile.errors import ConfigError
from fl_mobile.records import FitPlan


@dataclass(frozen=True)
class Personal:
    """[personal]: what a device has of its own."""

    private: str = key(NONE, f"{' | '.join(PRIVATE)} | a pattern of paths such as block_3/*: tensors that never travel")


def check_personal(personal: Personal, plan: FitPlan, recipes: Collection[str]) -> None:
    """Raises `ConfigError` if the rest of the experiment rules out what [personal] asks for.

    Args:
        plan: Local training as the algorithm wants it.
        recipes: TFLite variants to be exported.
    """
    if personal.private == NONE:
        return
    if plan.proximal_mu:
        raise ConfigError(
            "personal.private cannot be used with an algorithm that pulls devices to the server's model, because the"
            " server has no private tensors to pull to; use fedavg, scaffold or fednova"
        )
    if recipes:
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
