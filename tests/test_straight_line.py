"""The straight line of docs/straight-line.md is the one that is run."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import replace
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from device_sim.experiment.toml import parse_experiment
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.synchronous import play_synchronously
from fl_mobile.storage.shelf import Shelf
from tests.device_sim.numpy_engine import numpy_federation
from tests.device_sim.rounds.test_oracle import PLAIN

PAGE = (Path(__file__).parents[1] / "docs/straight-line.md").read_text(encoding="utf-8")
HOPS = re.findall(r"^\| \d+ \| `([\w.]+):([\w.]+)`", PAGE, re.MULTILINE)


def test_every_call_of_the_page_exists() -> None:
    assert len(HOPS) == 12
    for module, name in re.findall(r"`((?:fl_mobile|device_sim)[\w.]+):([\w.]+)`", PAGE):
        assert callable(reduce(getattr, name.split("."), import_module(module)))


def test_a_round_makes_the_calls_of_the_page_in_their_order(tmp_path: Path) -> None:
    """The first time each is called; the link stands between bytes made and packets folded, for a rule that waits."""
    changes = ("upload.codec=ecsq", "train.cohort=3")
    federation = numpy_federation(parse_experiment(PLAIN, changes))
    waiting = replace(federation.rules.rule, subtractable=False)
    vars(federation)["rules"] = replace(federation.rules, rule=waiting)
    memory = FleetMemory(Shelf(tmp_path))
    state = federation.algorithm.init(federation.initial, federation.spec)
    codes = {reduce(getattr, name.split("."), import_module(m)).__code__: (m, name) for m, name in HOPS}
    seen: list[tuple[str, str]] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        hop = codes.get(frame.f_code) if event == "call" else None
        if hop and hop not in seen and (seen or hop == HOPS[0]):  # what is published goes through `pack` before
            seen.append(hop)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        play_synchronously(federation, memory, state, tmp_path / "updates")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert seen == HOPS
