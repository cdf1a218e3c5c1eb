"""A loaded training program: weights in, steps, weights out. NumPy and a runtime only, never TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.training.contract import Contract, Port
from fl_mobile.errors import DataError, SpecMismatch, VerifyError
from fl_mobile.tensors import Tensors, check_fits

Call = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Signature name, inputs by name → outputs by name."""


@dataclass(frozen=True)
class TrainingSession:
    """One interpreter over one program. Not for two threads at once.

    Attributes:
        contract: What the bytes were checked against.
        call: Runs a signature.
        held: Bytes that must live as long as the session.
    """

    contract: Contract
    call: Call
    held: bytes = b""

    def set_weights(self, weights: Tensors) -> None:
        """Writes the weights; optimizer state, step count, proximal anchor and correction start afresh.

        Raises:
            SpecMismatch: They are not this program's.
        """
        check_fits(weights, self.contract.spec, "set_weights")
        self.call("set_weights", {w.name: weights[w.path] for w in self.contract.weights})

    def get_weights(self) -> Tensors:
        """Returns copies of the weights, in the order of the wire's spec."""
        out = self.call("get_weights", {"dummy": np.zeros(1, np.float32)})
        return {w.path: out[w.name].reshape(w.shape) for w in self.contract.weights}

    def set_correction(self, correction: Tensors) -> None:
        """Sets what is added to every gradient until the next ``set_weights``; trainable weights only."""
        if not self.contract.correction:
            raise VerifyError("this program was built without correction=True; build it again")
        trained = [w for w in self.contract.weights if w.trainable]
        missing = [w.path for w in trained if w.path not in correction]
        if missing:
            raise SpecMismatch(f"set_correction: expected every trainable weight, missing {missing[:3]}")
        self.call("set_correction", {w.name: np.asarray(correction[w.path], np.float32) for w in trained})

    def train(
        self, x: np.ndarray, y: np.ndarray, *, learning_rate: float, seed: int = 0, prox_mu: float = 0.0
    ) -> tuple[float, float]:
        """Runs one step on at most a batch of examples; returns mean loss and the number of right answers.

        Args:
            x: Examples, ``[n, …]`` with n ≤ the program's batch.
            y: Labels ``[n]``, or targets as the program takes them.
            learning_rate: Step size.
            seed: Of dropout, int32 ≥ 0.
            prox_mu: FedProx's μ.

        Raises:
            DataError: More examples than the batch holds, none, or of another shape.
        """
        feeds = self._batch(x, y, seed) | self._rates(learning_rate, prox_mu)
        wanted = {p.name for p in self.contract.signature("train").inputs}
        out = self.call("train", {k: v for k, v in feeds.items() if k in wanted})
        return float(out["loss"][0]), float(out["correct"][0])

    def accumulate(self, x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
        """Adds the gradient of at most a batch of examples to the next `apply`; returns as `train`, weights stay.

        Every call draws dropout masks of its own.

        Raises:
            DataError: As `train`.
            VerifyError: The program was built without ``accumulate=True``.
        """
        wanted = {p.name for p in self.contract.signature("accumulate").inputs}
        feeds = self._batch(x, y, seed)
        out = self.call("accumulate", {k: v for k, v in feeds.items() if k in wanted})
        return float(out["loss"][0]), float(out["correct"][0])

    def apply(self, *, learning_rate: float, prox_mu: float = 0.0) -> int:
        """Makes one step from the mean gradient of all examples accumulated since the last; returns their number.

        Raises:
            VerifyError: The program was built without ``accumulate=True``.
        """
        self.contract.signature("apply")
        return round(float(self.call("apply", self._rates(learning_rate, prox_mu))["examples"][0]))

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Returns summed loss and the number of right answers over at most a batch."""
        feeds = self._batch(x, y)
        out = self.call("evaluate", {k: feeds[k] for k in ("x", "y", "mask")})
        return float(out["loss_sum"][0]), float(out["correct"][0])

    def infer(self, x: np.ndarray) -> np.ndarray:
        """Returns the model's outputs for at most a batch, ``float32[n, …]``."""
        padded = self._batch(x, np.zeros((len(x), *self._port("y").shape[1:]), np.int32))["x"]
        return self.call("infer", {"x": padded})["outputs"][: len(x)]

    def _port(self, name: str) -> Port:
        return next(p for p in self.contract.signature("train").inputs if p.name == name)

    def _rates(self, learning_rate: float, prox_mu: float) -> dict[str, np.ndarray]:
        rates = {"learning_rate": np.array([learning_rate], np.float32)}
        if self.contract.proximal:
            rates["prox_mu"] = np.array([prox_mu], np.float32)
        elif prox_mu:
            raise VerifyError("this program was built without proximal=True, so prox_mu has no effect; build it again")
        return rates

    def _batch(self, x: np.ndarray, y: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
        """Pads a batch by repeating its last example, which keeps padding rows in the data's range, mask 0."""
        port, target = self._port("x"), self._port("y")
        size = self.contract.batch_size
        if not 0 < len(x) <= size or len(x) != len(y) or tuple(x.shape[1:]) != port.shape[1:]:
            raise DataError(
                f"a batch must be 1 to {size} examples of shape {port.shape[1:]} with as many labels,"
                f" got {x.shape} and {len(y)} labels"
            )
        if tuple(y.shape[1:]) != target.shape[1:]:
            raise DataError(f"targets must be of shape {target.shape[1:]} an example, got {y.shape[1:]}")
        x, y = np.asarray(x, port.dtype), np.asarray(y, target.dtype)
        mask = np.ones(size, np.float32)
        if len(x) < size:
            rows = np.minimum(np.arange(size), len(x) - 1)
            mask[len(x) :] = 0.0
            x, y = x[rows], y[rows]
        return {"x": x, "y": y, "mask": mask, "seed": np.array([seed], np.int32)}


def open_session(tflite: bytes, contract: Contract, *, threads: int = 1, interpreter: Any = None) -> TrainingSession:
    """Checks the bytes, then loads them.

    Args:
        tflite: The program.
        contract: Its contract.
        threads: Threads inside the interpreter.
        interpreter: An ``Interpreter`` class; ``ai_edge_litert``'s if None. ``tf.lite``'s and ``tflite_runtime``'s fit.

    Raises:
        VerifyError: The bytes are not the contract's; no native code has seen them.
    """
    contract.check(tflite)
    if interpreter is None:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter
    loaded = interpreter(model_content=tflite, num_threads=threads)
    runners: dict[str, Any] = {}

    def call(name: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Made when first needed: every signature has an arena of its own, and a worker that only trains needs one.
        if name not in runners:
            contract.signature(name)
            runners[name] = loaded.get_signature_runner(name)
        return dict(runners[name](**feeds))

    return TrainingSession(contract, call)


def open_compiled_session(tflite: bytes, contract: Contract, *, threads: int = 1) -> TrainingSession:
    """Checks the bytes, then loads them with LiteRT 2.x's ``CompiledModel``, the API apps get.

    Raises:
        VerifyError: The bytes are not the contract's; ``CompiledModel`` would kill the process (LiteRT#10080).
    """
    contract.check(tflite)
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, Options

    options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=threads))
    model = CompiledModel.from_buffer(tflite, options=options)
    buffers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def call(name: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = contract.signature(name)
        if name not in buffers:
            buffers[name] = (
                {p.name: model.create_input_buffer_by_name(name, p.name) for p in signature.inputs},
                {p.name: model.create_output_buffer_by_name(name, p.name) for p in signature.outputs},
            )
        inputs, outputs = buffers[name]
        for key, buffer in inputs.items():
            buffer.write(np.ascontiguousarray(feeds[key]))
        model.run_by_name(name, inputs, outputs)
        shapes = {p.name: p for p in signature.outputs}
        return {k: _read(b, shapes[k].shape, shapes[k].dtype) for k, b in outputs.items()}

    # The compiled model reads from the bytes as long as it lives: the session holds both.
    return TrainingSession(contract, call, held=tflite)


def open_tflite_runtime_session(tflite: bytes, contract: Contract, *, threads: int = 1) -> TrainingSession:
    """Checks the bytes, then loads them with ``tflite_runtime``, where it is installed."""
    from tflite_runtime.interpreter import Interpreter

    return open_session(tflite, contract, threads=threads, interpreter=Interpreter)


SESSIONS: dict[str, Callable[[bytes, Contract], TrainingSession]] = {
    "litert": open_session,
    "litert-compiled": open_compiled_session,
    "tflite-runtime": open_tflite_runtime_session,
}
"""Row of `RUNTIMES` → what opens a training program on it, computing on one thread."""


def _read(buffer: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(buffer.read(int(np.prod(shape)), np.dtype(dtype))).reshape(shape)
