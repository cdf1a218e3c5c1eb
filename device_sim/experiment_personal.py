"""The sections of an experiment about single devices, and which algorithms go with the rest of an experiment."""

from __future__ import annotations

from fl_mobile.algorithms import Algorithm
from fl_mobile.errors import ConfigError


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
