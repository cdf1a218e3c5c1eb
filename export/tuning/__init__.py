"""Weights made small before they are converted: pruned, shared, trained for int8, on data that is not the devices'.

``tune`` (tune.py) runs the stages (stages.py, TFMOT) of a row of ``TUNINGS`` (table.py) on the ``tf_keras`` twin of a
Keras 3 model (bridge.py). Federated instead, so that no data leaves the devices: ``fl_mobile.wire.pruning_mask`` and
``with_kept_zeros`` and ``with_fake_quant`` (on_device.py). Importing this package loads neither TensorFlow nor Keras.
"""

from export.tuning.on_device import with_fake_quant, with_kept_zeros
from export.tuning.table import TUNINGS, Tuning, find_tuning
from export.tuning.tune import ORIGINS, Tuned, TuningReport, TuningSet, check_tuned, tune

__all__ = [
    "ORIGINS",
    "TUNINGS",
    "Tuned",
    "Tuning",
    "TuningReport",
    "TuningSet",
    "check_tuned",
    "find_tuning",
    "tune",
    "with_fake_quant",
    "with_kept_zeros",
]
