"""Federated algorithms: records of functions, one row each in `ALGORITHMS`.

A round is: the plan of local training the algorithm asks for, then ``apply`` of the mean update to the global model.

>>> import numpy as np
>>> from fl_mobile.tensors import TensorSpec
>>> algorithm = ALGORITHMS["fedavg"].build()
>>> state = algorithm.init({"w": np.zeros(1, np.float32)}, {"w": TensorSpec((1,))})
>>> algorithm.apply(state, Mean({"w": np.array([0.5], np.float32)})).weights["w"].tolist()
[0.5]
"""

from __future__ import annotations

from fl_mobile.algorithms.adaptive import Adaptive, AdaptiveMean, fedadagrad, fedadam, fedyogi
from fl_mobile.algorithms.averaging import Momentum, Proximal, fedavg, fedavgm, fedprox, fedsgd
from fl_mobile.algorithms.base import Algorithm, AlgorithmRow, ControlVariate, Mean, ServerPlan
from fl_mobile.algorithms.drift import Dynamic, feddyn, fednova, scaffold
from fl_mobile.table import Table

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmRow", "ControlVariate", "Mean", "ServerPlan"]

ALGORITHMS: Table[AlgorithmRow] = Table(
    "algorithm",
    AlgorithmRow,
    {
        "fedavg": AlgorithmRow(fedavg),
        "fedsgd": AlgorithmRow(fedsgd),
        "fedprox": AlgorithmRow(fedprox, Proximal),
        "fedavgm": AlgorithmRow(fedavgm, Momentum),
        "fedadam": AlgorithmRow(fedadam, AdaptiveMean),
        "fedyogi": AlgorithmRow(fedyogi, AdaptiveMean),
        "fedadagrad": AlgorithmRow(fedadagrad, Adaptive),
        "scaffold": AlgorithmRow(scaffold),
        "fednova": AlgorithmRow(fednova),
        "feddyn": AlgorithmRow(feddyn, Dynamic),
    },
)
"""``server.algorithm`` → algorithm."""
