"""Who attacks: a share of the population, drawn once from the experiment's seed, whoever is then asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from device_sim.attacks import ATTACKS, NONE
from device_sim.attacks.base import Attack, Setting
from device_sim.datasets import Dataset
from device_sim.experiment.attack import AttackPlan
from fl_mobile.aggregation.single import laid_out
from fl_mobile.errors import ConfigError
from fl_mobile.records import Update
from fl_mobile.seeds import rng_for
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import Spec, Tensors, cut


@dataclass(frozen=True)
class Attackers:
    """The malicious devices of a federation and what they do.

    Attributes:
        attack: The same for all of them.
        malicious: ``bool[population]``.
    """

    attack: Attack
    malicious: np.ndarray

    def among(self, devices: np.ndarray) -> np.ndarray:
        """Returns ``bool[n]``: which of the devices ``int64[n]`` are malicious."""
        found: np.ndarray = self.malicious[devices]
        return found

    def examples(self, device: int, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what a device trains on."""
        if self.attack.examples is None or not self.malicious[device]:
            return x, y
        return self.attack.examples(x, y, rng_for(seed, "attack", "examples"))


def open_attackers(keys: AttackPlan, seed: int, population: int, dataset: Dataset) -> Attackers | None:
    """Returns the attackers that [attack] names; None if nobody attacks.

    Raises:
        ConfigError: The attack cannot be on this data, or the share is nobody or everybody.
    """
    if keys.name == NONE:
        return None
    count = round(keys.share * population)
    if not 0 < count < population:
        raise ConfigError(
            f"attack.share {keys.share:g} of {population} devices is {'nobody' if not count else 'everybody'}:"
            " give a share of at least one device, and leave one honest"
        )
    brightest = 255.0 if dataset.train.x.dtype == np.uint8 else float(dataset.train.x.max())
    setting = Setting(dataset.num_classes, dataset.input_shape, brightest)
    attack = ATTACKS[keys.name].make(keys.of_attack, setting)
    if attack.examples is not None and dataset.task != CLASSIFICATION:
        raise ConfigError(
            f"attack.name '{keys.name}' changes labels, and task '{dataset.task}' has none of one class an example:"
            " take an attack on updates, such as sign-flip"
        )
    malicious = np.zeros(population, bool)
    malicious[rng_for(seed, "attackers").permutation(population)[:count]] = True
    return Attackers(attack, malicious)


@dataclass(frozen=True)
class Lies:
    """What the malicious clients of a step do with their updates; picklable, because workers may be processes.

    Attributes:
        who: The malicious ones.
        forged: What they all send, if they know what the honest ones do.
    """

    attack: Attack
    who: frozenset[int]
    forged: Tensors | None = None

    def update(self, client: int, update: Update, seed: int) -> Update:
        """Returns what a client says that it trained."""
        if client not in self.who:
            return update
        if self.forged is not None:
            return replace(update, delta=update.delta | self.forged)
        return self.attack.update(update, rng_for(seed, "attack", "update")) if self.attack.update else update

    def packet(self, client: int, packet: bytes, seed: int) -> bytes:
        """Returns the bytes that leave a client."""
        if client not in self.who or self.attack.packet is None:
            return packet
        return self.attack.packet(packet, rng_for(seed, "attack", "packet"))

    def knowing(self, honest: Sequence[Tensors], spec: Spec) -> Lies:
        """Returns the lies of attackers that have seen the honest updates of what travels; all is as it was if they
        need not, or there are none to see.
        """
        if self.attack.collude is None or not honest:
            return self
        rows = np.stack([laid_out(delta, spec) for delta in honest]).astype(np.float64)
        forged = self.attack.collude(rows, len(self.who)).astype(np.float32)
        return replace(self, forged=cut(forged, spec))
