"""The contract of a training program: what a phone or the `litert` engine must know to run it. No TensorFlow here.

JSON beside the ``.tflite``: signatures with tensor names, shapes and dtypes, weight names ↔ Keras paths in the order of
the wire's spec, what is built in (optimizer, loss, batch size), versions, length and SHA-256 of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.tflite.graph import Graph
from fl_mobile.errors import VerifyError
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import Spec, TensorSpec

FORMAT = 1


@dataclass(frozen=True)
class Port:
    """One input or output of a signature."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """One entry point of the program; tensors are bound by name, never by position."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Weight:
    """One travelling tensor: its name in ``get_weights`` and ``set_weights``, and its path on the wire."""

    name: str
    path: str
    shape: tuple[int, ...]
    trainable: bool


@dataclass(frozen=True)
class Contract:
    """Everything about one program file.

    Attributes:
        model: Name of the Keras model.
        batch_size: Rows of every batch; a short one is padded and its mask says which rows are real.
        optimizer: Row of `OPTIMIZERS`; its state is zeroed by ``set_weights``.
        momentum: Coefficient of ``momentum``.
        loss: Row of `LOSSES`.
        from_logits: Whether the model's outputs still need softmax or sigmoid.
        label_smoothing: Of cross-entropies, in ``train``.
        clip_norm: Global-norm bound of every step's gradient, 0 for none.
        proximal: Whether ``train`` takes ``prox_mu``.
        correction: Whether ``set_correction`` exists.
        accumulate: Whether ``accumulate`` and ``apply`` exist.
        dropout_layers: How many masks of Dropout layers and cells a step draws from ``seed``.
        weights: In the order of the wire's spec.
        signatures: By name.
        versions: Of TensorFlow, Keras and this format.
        file_bytes: Length of the ``.tflite``.
        sha256: Of the ``.tflite``, hexadecimal.
        task: Row of `fl_mobile.tasks.TASKS`: what ``y`` holds. ``correct`` is the sum over examples of the share of
            their positions or tags that are right; 0 where answers are numbers.
        class_weights: What the loss of each class is multiplied by in ``train``; empty is 1.
        inputs: Of several, what lies in a row of ``x``, in this order: ``name:dtype:shape``. Targets of several heads
            lie in ``y`` as the task spells them.
        target_mean: Of targets that the program takes standardised: ``y`` is their difference to it …
        target_spread: … divided by this, one number an entry; both are empty where ``y`` holds targets as they are.
    """

    model: str
    batch_size: int
    optimizer: str
    momentum: float
    loss: str
    from_logits: bool
    label_smoothing: float
    clip_norm: float
    proximal: bool
    correction: bool
    accumulate: bool
    dropout_layers: int
    weights: tuple[Weight, ...]
    signatures: tuple[Signature, ...]
    versions: Mapping[str, str]
    file_bytes: int
    sha256: str
    task: str = CLASSIFICATION
    class_weights: tuple[float, ...] = ()
    inputs: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_spread: tuple[float, ...] = ()

    @property
    def spec(self) -> Spec:
        """What travels, as the wire sees it."""
        return {w.path: TensorSpec(w.shape, w.trainable) for w in self.weights}

    def signature(self, name: str) -> Signature:
        """Returns one signature.

        Raises:
            VerifyError: The program has none of that name.
        """
        for found in self.signatures:
            if found.name == name:
                return found
        raise VerifyError(f"the program has no signature '{name}'; it has {[s.name for s in self.signatures]}")

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON value."""
        return {"format": FORMAT, **asdict(self)}

    def check(self, tflite: bytes) -> None:
        """Compares length and SHA-256. Must come before any native loader: one of them crashes on a cut file.

        Raises:
            VerifyError: These are not the bytes the contract was written for.
        """
        if len(tflite) != self.file_bytes:
            raise VerifyError(f"training program: expected {self.file_bytes} bytes, got {len(tflite)}; fetch it again")
        if hashlib.sha256(tflite).hexdigest() != self.sha256:
            raise VerifyError(
                "training program: SHA-256 differs from its contract; the file is damaged, fetch it again"
            )


def contract_from_json(value: Mapping[str, Any]) -> Contract:
    """Reads what `Contract.to_json` wrote.

    Raises:
        VerifyError: It is not a contract of this format.
    """
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise VerifyError(f"not a training contract of format {FORMAT}: export the training program again")
    try:
        fields = {k: v for k, v in value.items() if k != "format"}
        fields["weights"] = tuple(Weight(**{**w, "shape": tuple(w["shape"])}) for w in value["weights"])
        fields["signatures"] = tuple(
            Signature(s["name"], _ports(s["inputs"]), _ports(s["outputs"])) for s in value["signatures"]
        )
        for name in ("class_weights", "inputs", "target_mean", "target_spread"):
            fields[name] = tuple(value.get(name, ()))
        return Contract(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise VerifyError(f"training contract lacks what it must say ({error!r}); export it again") from error


def signature_in(graph: Graph, name: str) -> Signature:
    """Returns a signature as the file itself has it, ports by name.

    Raises:
        VerifyError: The file has none of that name.
    """
    found = graph.signature(name)
    inputs, outputs = (
        tuple(Port(t.name, tuple(t.shape), t.dtype) for t in sorted(side, key=lambda t: t.name))
        for side in (found.inputs, found.outputs)
    )
    return Signature(name, inputs, outputs)


def check_bindings(weights: Sequence[Weight], signatures: Sequence[Signature]) -> None:
    """Checks that every weight can be bound by name on its way in and out, and that Java can call every signature.

    Raises:
        VerifyError: A weight has no port of its shape, or a signature has no input.
    """
    by_name = {signature.name: signature for signature in signatures}
    missing = {"set_weights", "get_weights", "train", "evaluate", "infer"} - by_name.keys()
    if missing:
        raise VerifyError(f"the program has no signature {', '.join(sorted(missing))}")
    want = {(w.name, w.shape) for w in weights}
    names = {w.name for w in weights}
    sides = {"set_weights": by_name["set_weights"].inputs, "get_weights": by_name["get_weights"].outputs}
    for name, ports in sides.items():
        odd = sorted(want ^ {(port.name, port.shape) for port in ports if port.name in names})[:3]
        if odd:
            raise VerifyError(f"{name} lost weights, e.g. {odd}")
    for name, signature in by_name.items():
        if not signature.inputs:
            raise VerifyError(f"signature {name} lost its input; Java cannot call it")


def _ports(values: Any) -> tuple[Port, ...]:
    return tuple(Port(v["name"], tuple(v["shape"]), v["dtype"]) for v in values)
