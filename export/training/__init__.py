"""The device program: one ``.tflite`` that trains on the phone with builtin operations only.

```
build_training_program ─▶ TrainingProgram(tflite, contract) ─▶ open_session ─▶ set_weights, train …, get_weights
      program.py                  contract.py                   session.py
                                       └─▶ ship_program ─▶ folder with manifest, signature ─▶ verify_program
                                             shipped.py
```
Tables to extend with one row: ``RULES`` (gradients/), ``LOSSES`` and ``OPTIMIZERS`` (``fl_mobile.local``).
Importing this package loads neither TensorFlow nor Keras; building a program does, running one does not.
"""

from export.training.contract import Contract, contract_from_json
from export.training.session import TrainingSession, open_session

__all__ = ["Contract", "TrainingSession", "contract_from_json", "open_session"]
