"""What every place where a model trains agrees on: local optimizers, losses, right answers. TensorFlow is imported by
whoever traces them, never here.

| table        | file            | read by                                                                      |
|--------------|-----------------|------------------------------------------------------------------------------|
| `OPTIMIZERS` | `optimizers.py` | experiment keys, `FitPlan`, both Keras engines, the training program, costs    |
| `LOSSES`     | `losses.py`     | the same, and what a model's outputs and labels are checked against           |
"""

from fl_mobile.local.losses import LOSSES, Loss
from fl_mobile.local.optimizers import OPTIMIZERS, LocalOptimizer

__all__ = ["LOSSES", "OPTIMIZERS", "LocalOptimizer", "Loss"]
