"""One server step: who is asked, what travels down, what happens on devices, what travels up, who counts.

```
 crew ─▶ download ─▶ engine.train + phones ─▶ synchronous | asynchronous ─▶ server.fold ─▶ next state
 who     full|delta   update → packet          virtual time decides
```
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_sim.federation.federation import Federation
from device_sim.rounds.asynchronous import play_asynchronously
from device_sim.rounds.masked import play_masked
from device_sim.rounds.memory import FleetMemory
from device_sim.rounds.synchronous import play_synchronously
from device_sim.rounds.traffic import Traffic
from fl_mobile.records import RoundReport, ServerState

Play = Callable[[Federation, FleetMemory, ServerState, Path], tuple[ServerState, RoundReport, Traffic]]

SERVERS: dict[str, Play] = {"synchronous": play_synchronously, "asynchronous": play_asynchronously}
"""``clock.mode`` → one server step; the parts are the same, only the waiting differs."""


def server_of(federation: Federation) -> Play:
    """Returns how a federation's server plays one step: as ``clock.mode`` says, or under masks."""
    return play_masked if federation.masks else SERVERS[federation.experiment.clock.mode]
