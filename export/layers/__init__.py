"""What quantisation does to each layer, and how to leave a layer out of it.

```
float32 artifact ─┐                ┌─▶ layer_errors   noise of every layer, at its end and at the answer
                  ├─▶ paired ops ──┤
int8 artifact  ───┘                └─▶ keep_in_float  the same file with chosen layers computed in float32
int16x8 artifact ────────────────────▶ keep_in_int16  the same file with chosen layers on 16-bit activations
```
Both work on finished flatbuffers of any recipe and converter version: TensorFlow's own ``QuantizationDebugger`` has
``denylisted_nodes`` for int8 only (its int16 quantiser knows none, and the MLIR one writes int16 files that fail to
load, TF 2.21), needs the model at hand, and judges a layer by its own output alone.
"""

from export.layers.error import LayerError, layer_errors, ranked_layers
from export.layers.keep import keep_in_float, keep_in_int16
from export.layers.names import FloatTwin, float_twin, layer_refused, twin_of
from export.layers.variant import LayerReport, check_keep_float, layer_lines, measure_layers

__all__ = [
    "FloatTwin",
    "LayerError",
    "LayerReport",
    "check_keep_float",
    "float_twin",
    "keep_in_float",
    "keep_in_int16",
    "layer_errors",
    "layer_lines",
    "layer_refused",
    "measure_layers",
    "ranked_layers",
    "twin_of",
]
