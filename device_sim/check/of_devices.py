"""What datasets, partitioners and everything about devices promise."""

from __future__ import annotations

from typing import Any

import numpy as np

from device_sim.check.law import SEED, SPEC, ask, updates


def _dealt(row: Any, name: str, seed: int = SEED) -> list[np.ndarray]:
    from device_sim.client_data.partition import partition

    y, device_of = np.arange(600) % 10, np.arange(600) % 20 if "device_of" in row.reads else None
    return partition(name, y, 20, np.random.default_rng(seed), device_of=device_of)


def partition_covers(row: Any, name: str) -> None:
    parts = _dealt(row, name)
    ask(len(parts) == 20, f"expected 20 devices, got {len(parts)}")
    ask(np.array_equal(np.sort(np.concatenate(parts)), np.arange(600)), "not every example is on exactly one device")


def partition_repeats(row: Any, name: str) -> None:
    pairs = zip(_dealt(row, name), _dealt(row, name), strict=True)
    ask(all(np.array_equal(a, b) for a, b in pairs), "the same generator dealt otherwise")


def dataset_loads(row: Any, name: str) -> None:
    from device_sim.datasets import load_dataset

    one, again = (load_dataset(name, seed=0) for _ in range(2))
    ask(one.fingerprint == again.fingerprint, "loaded twice with one seed, it is other data")
    ask((one.device_of is not None) == row.natural, f"the row says natural={row.natural}, the data says otherwise")


def cohorts(row: Any, name: str) -> None:
    from device_sim.fleet.ledger import Ledger
    from device_sim.fleet.selection.cohort import Request
    from device_sim.fleet.selection.samplers import choose

    def able(index: np.ndarray) -> np.ndarray:
        return (index % 10 == 0).astype(np.uint8)

    for number in range(5):
        request = Request(SEED, number, 500, 20, able, plan=row.parameters())
        one, again = (choose(name, request, Ledger()) for _ in range(2))
        ask(np.array_equal(one.devices, again.devices), "the same seed chose another cohort")
        ask(len(np.unique(one.devices)) == len(one.devices), "a device was chosen twice")
        ask(not len(one.devices) or 0 <= one.devices.min() <= one.devices.max() < 500, "no device of the fleet")
        ask((one.devices % 10 != 0).all(), "a device was chosen that could not")


def policy(row: Any, name: str) -> None:
    from device_sim.fleet.ledger import Ledger
    from device_sim.fleet.selection.policies import Trained, open_policy

    index = np.arange(30)
    for at in (0.0, 1e4, 1e6):
        one, again = (open_policy(name, SEED).before(Ledger(), at, index) for _ in range(2))
        ask(np.shape(one) == (30,), f"expected a reason code for each of 30 devices, got {np.shape(one)}")
        ask(np.array_equal(one, again), "asked twice, it answers otherwise")
    after = open_policy(name, SEED).after(Ledger(), Trained(index, np.ones(30), np.ones(30)))
    ask(np.shape(after) == (30,), f"expected a reason code after training for each of 30, got {np.shape(after)}")


def attack(row: Any, name: str) -> None:
    from device_sim.attacks.base import Setting
    from fl_mobile.records import Update

    attack = row.make(row.parameters(), Setting(10, (8, 8, 1), 255.0))
    rng = np.random.default_rng(SEED)
    x, y = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6)
    if attack.examples:
        x2, y2 = attack.examples(x, y, rng)
        ask(x2.shape == x.shape and y2.shape == y.shape, "it trains on another number of examples than it has")
    if attack.update:
        sent = attack.update(Update(updates(1)[0], 6), rng)
        ask(isinstance(sent, Update) and sent.delta.keys() == SPEC.keys(), "its update has other tensors")
    if attack.collude:
        together = attack.collude(np.ones((5, 30)), 2)
        ask(np.shape(together) == (30,), f"together they send {np.shape(together)}, expected one update of 30 values")


def numbers(row: Any, name: str) -> None:
    for key, value in vars(row).items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            ask(value >= 0 and value == value, f"{key} is {value}, expected a number ≥ 0")


def presence(row: Any, name: str) -> None:
    from device_sim.fleet.availability.presence import Clock
    from device_sim.fleet.devices.fleet import open_fleet

    devices = open_fleet(SEED, 40).devices(np.arange(40))
    for at in (0.0, 4e4, 1e6):
        one, again = (row(SEED, Clock(0.0, 4))(devices, at) for _ in range(2))
        for key, value in vars(one).items():
            ask(np.shape(value) == (40,), f"{key} has shape {np.shape(value)}, expected one for each of 40 devices")
            ask(np.array_equal(value, getattr(again, key)), f"asked twice, {key} is another")
