"""Federated algorithms: records of functions, one row each in `ALGORITHMS`.

A round is: the plan of local training the algorithm asks for, then ``apply`` of the mean update to the global model.

>>> import numpy as np
>>> from fl_mobile.tensors import TensorSpec
>>> algorithm = ALGORITHMS["fedavg"](ServerPlan())
>>> state = algorithm.init({"w": np.zeros(1, np.float32)}, {"w": TensorSpec((1,))})
>>> algorithm.apply(state, Mean({"w": np.array([0.5], np.float32)})).weights["w"].tolist()
[0.5]
"""

from __future__ import annotations

from collections.abc import Callable

from fl_mobile.algorithms.adaptive import fedadagrad, fedadam, fedyogi
from fl_mobile.algorithms.averaging import fedavg, fedavgm, fedprox, fedsgd
from fl_mobile.algorithms.base import Algorithm, DeviceState, Mean, ServerPlan
from fl_mobile.algorithms.drift import feddyn, fednova, scaffold

__all__ = ["ALGORITHMS", "Algorithm", "DeviceState", "Mean", "ServerPlan"]

ALGORITHMS: dict[str, Callable[[ServerPlan], Algorithm]] = {
    "fedavg": fedavg,
    "fedsgd": fedsgd,
    "fedprox": fedprox,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
    "scaffold": scaffold,
    "fednova": fednova,
    "feddyn": feddyn,
}
