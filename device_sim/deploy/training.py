"""How a reference client trains: the coordinator's program on LiteRT, checked before anything loads it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

import numpy as np

from device_sim.deploy.examples import Examples
from device_sim.deploy.fitting import rows_for
from device_sim.engines.records import Task
from device_sim.engines.trainers.litert import fit
from export.training.contract import contract_from_json
from export.training.session import SESSIONS, TrainingSession
from fl_mobile.errors import DataError, VerifyError
from fl_mobile.records import FitPlan, Update
from fl_mobile.tensors import Tensors

_BUILT_IN = ("batch_size", "optimizer", "loss", "task", "label_smoothing", "class_weights")
"""What of a plan stands in the program."""

PROGRAM, CONTRACT = "training", "training-contract"


class OnLiteRT:
    """Trains on any thread, with an interpreter for each.

    Args:
        runtime: Row of `SESSIONS`.
    """

    def __init__(self, runtime: str = "litert") -> None:
        self._open, self._local = SESSIONS[runtime], threading.local()

    def fit(
        self,
        examples: Examples,
        program: Mapping[str, bytes],
        weights: Tensors,
        plan: FitPlan,
        *,
        seed: int,
        start: Tensors | None,
        pull: Tensors | None,
    ) -> Update:
        """Returns one client's update; see `fl_mobile.client.participate.Trainer`.

        Raises:
            VerifyError: The program is not what its contract says, or does not train by this plan.
            DataError: It does not take what this client holds.
        """
        session = self._session(program)
        contract = session.contract
        fits = all(getattr(plan, name) == getattr(contract, name) for name in _BUILT_IN)
        if not fits or list(contract.spec) != list(weights) or (pull is not None and not contract.correction):
            raise VerifyError("the coordinator's program was built for another plan or model; it must publish its own")
        if pull is not None:  # nothing pulls on tensors that do not travel
            trained = [w for w in contract.weights if w.trainable]
            pull = {w.path: pull.get(w.path, np.zeros(w.shape, np.float32)) for w in trained}
        x, y = rows_for(contract, examples)
        task = Task(0, x, y, seed, start=start, pull=pull)
        try:
            return fit(session, weights, task, plan)
        except RuntimeError as error:  # of an operation that looks at values: they are this client's
            raise DataError(
                f"{examples.name}: the coordinator's program cannot take these examples"
                f" ({' '.join(str(error).split())}); are tokens beyond its vocabulary among them?"
            ) from None

    def _session(self, program: Mapping[str, bytes]) -> TrainingSession:
        if PROGRAM not in program or CONTRACT not in program:
            raise VerifyError(f"the coordinator names no program '{PROGRAM}'; it serves {sorted(program)}")
        held: tuple[bytes, TrainingSession] | None = getattr(self._local, "held", None)
        if held is None or held[0] != program[CONTRACT]:
            try:
                contract = contract_from_json(json.loads(program[CONTRACT]))
            except ValueError as error:
                raise VerifyError(f"the program's contract is no JSON: {error}") from None
            held = (program[CONTRACT], self._open(program[PROGRAM], contract))
            self._local.held = held
        return held[1]
