"""A world for the two roles of `fl_mobile`: who trains, when, on whose data, over what link. It owns no protocol.

```
experiment ─▶ federation ─▶ rounds: crew ─▶ trip (training on engines, the link) ─▶ the server's step
                 │             └─ one step after another in run, which keeps them safe on disk
                 └─ datasets, client_data, fleet, engines
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_sim.api import Report, Run, simulate
    from device_sim.run.log import Round

__all__ = ["Report", "Round", "Run", "simulate"]


def __getattr__(name: str) -> Any:
    """Imports the door when somebody comes through it: ``import device_sim`` alone costs nothing."""
    if name in __all__:
        from device_sim import api

        return getattr(api, name)
    raise AttributeError(f"module 'device_sim' has no attribute {name!r}")
