"""Client and server of a federation: what both agree on, and the half of the protocol that each plays; NumPy only.

```
server                                   client
assign, publish ──────── Download ─────▶ receive ─▶ local training ─▶ Update
                                                                        │ mask, residual, prediction
admit ◀──────────────────── bytes ────── answer: quantize, prune, entropy-code, pack
  ├── Receipt ─────────────────────────▶ keep: residual, control variate
  └─▶ aggregation ─▶ algorithm ─▶ the next ServerState
```
Both roles are functions over frozen records: whoever drives them, the same packets give the same model. `device_sim`
drives them with a virtual clock. What is trained lives in `models`, which imports Keras lazily.

>>> import fl_mobile
>>> print(fl_mobile.measure("laplace", ["q8"], size=1000, repeats=2)[0].codec)
q8
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl_mobile.codecs import Codec, parse_codec
    from fl_mobile.errors import FlMobileError
    from fl_mobile.measurements.measurement import Measurement
    from fl_mobile.measurements.table import Measurements, measure
    from fl_mobile.tensors import Tensors

__version__ = "0.1.0"

__all__ = ["Codec", "FlMobileError", "Measurement", "Measurements", "Tensors", "__version__", "measure", "parse_codec"]

_HOMES = {
    "Codec": "fl_mobile.codecs",
    "FlMobileError": "fl_mobile.errors",
    "Measurement": "fl_mobile.measurements.measurement",
    "Measurements": "fl_mobile.measurements.table",
    "Tensors": "fl_mobile.tensors",
    "measure": "fl_mobile.measurements.table",
    "parse_codec": "fl_mobile.codecs",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for: ``import fl_mobile`` alone costs nothing."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fl_mobile' has no attribute {name!r}")
