"""How much noise quantisation adds in each layer, and how much of it reaches the answer.

The noise of one layer is what its quantised operation answers minus what the float32 one answers, both given the same
rounded input, so that no layer is blamed for another's. It is measured twice: against the layer's own signal, and
against the answer's when the float32 network goes on from there. Only the second tells which layer to keep in float:
a tensor with one wild channel has a fine ratio of its own while all its other channels are rounded away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.layers.flatbuffer import activations, read_model
from export.layers.names import FloatTwin
from export.layers.pairs import OpPair, paired
from export.layers.run import Values, every_tensor, run_slice, scale_of
from fl_mobile.errors import VerifyError

_LAST_ACTIVATIONS = frozenset({"SOFTMAX", "LOGISTIC"})
_TINY = 1e-30  # power of a layer that is silent on all frames


@dataclass(frozen=True)
class LayerError:
    """One quantised operation against its float32 twin. Ratios are in dB, larger is better; None adds no noise.

    Attributes:
        layer: Keras layer, ``"block/conv"`` when nested; empty for operations of no layer.
        op: Name in the schema.
        own_snr_db: Signal to the layer's own noise, at its end.
        answer_snr_db: Signal to the layer's own noise, at the logits, everything else in float32.
        total_snr_db: Signal to all noise up to here, at the layer's end, as the artifact runs.
        noise_share: Of the own noise of all operations at the logits, added as powers: 0..1.
    """

    layer: str
    op: str
    own_snr_db: float | None
    answer_snr_db: float | None
    total_snr_db: float | None
    noise_share: float


def layer_errors(data: bytes, twin: FloatTwin, frames: Mapping[str, np.ndarray]) -> tuple[LayerError, ...]:
    """Returns the noise of every operation of the artifact ``data`` that adds any, in execution order.

    The last softmax or sigmoid is left out: its rounding comes after the answer is decided.

    Args:
        twin: Float32 artifact of the same weights.
        frames: Input name → ``[n, ...]`` in the artifacts' input dtype; 16 typical ones are enough.

    Raises:
        VerifyError: The two artifacts do not hold the same operations, or answer more than one thing.
    """
    exact, quantized = read_model(twin.data), read_model(data)
    outputs = len(exact.subgraphs[0].outputs)
    if outputs != 1:
        raise VerifyError(f"noise is measured at one answer, the artifact has {outputs} outputs")
    pairs = paired(exact, quantized)
    if pairs[-1].op in _LAST_ACTIVATIONS:
        pairs.pop()
    values, stored = every_tensor(twin.data, exact, frames), every_tensor(data, quantized, frames)
    answer = int(pairs[-1].exact.outputs[0])
    found = []
    for pair in pairs:
        signal, noise = _own_noise(pair, exact, quantized, values)
        if not noise.any():
            continue
        found.append((pair, signal, noise, _carried(exact, pair, values, noise, answer)))
    total = sum(_power(at_answer) for *_, at_answer in found) or _TINY
    return tuple(
        LayerError(
            layer=twin.layer(pair.tensor),
            op=pair.op,
            own_snr_db=_decibel(signal, noise),
            answer_snr_db=_decibel(values[answer], at_answer),
            total_snr_db=_decibel(*_with_all_noise(pair, quantized, values, stored)),
            noise_share=_power(at_answer) / total,
        )
        for pair, signal, noise, at_answer in found
    )


def advice(errors: Iterable[LayerError]) -> str:
    """Returns which layer to keep in float first, as one sentence; empty when there is nothing to tell.

    >>> advice([LayerError("conv", "CONV_2D", 30.0, 24.0, 28.0, 0.8), LayerError("fc", "DENSE", 40.0, 30.0, 27.0, 0.2)])
    "Layer 'conv' adds 80% of the noise at the answer; if accuracy is lost, try --keep-float conv."
    """
    shares: dict[str, float] = {}
    for error in errors:
        if error.layer:
            shares[error.layer] = shares.get(error.layer, 0.0) + error.noise_share
    if not shares:
        return ""
    first = max(shares, key=lambda layer: shares[layer])
    return (
        f"Layer {first!r} adds {shares[first]:.0%} of the noise at the answer; if accuracy is lost,"
        f" try --keep-float {first}."
    )


def _own_noise(pair: OpPair, exact: Any, quantized: Any, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Returns signal and noise of one operation, ``float64[n, ...]`` each."""
    sources = activations(exact, pair.exact.inputs)
    rounding = [scale_of(quantized, index) for index in activations(quantized, pair.quantized.inputs)]
    stored = [scale.stored(values[index]) for scale, index in zip(rounding, sources, strict=True)]
    out = int(pair.quantized.outputs[0])
    ends = activations(quantized, pair.quantized.inputs)
    (rows,) = run_slice(quantized, dict(zip(ends, stored, strict=True)), [out])
    rounded = {
        index: scale.real(value).astype(values[index].dtype)
        for index, scale, value in zip(sources, rounding, stored, strict=True)
    }
    (signal,) = run_slice(exact, rounded, [int(pair.exact.outputs[0])])
    # In float32 both, or the mere moving of rounded values (pooling, reshape) would seem to add noise.
    return signal.astype(np.float64), scale_of(quantized, out).real(rows).astype(signal.dtype) - signal


def _carried(exact: Any, pair: OpPair, values: Values, noise: np.ndarray, answer: int) -> np.ndarray:
    """Returns what ``noise`` at the end of one operation becomes at the answer of the float32 network."""
    out = int(pair.exact.outputs[0])
    if out == answer:
        return noise
    disturbed = {**values, out: (values[out] + noise).astype(values[out].dtype)}
    after = _after(exact, out)
    (rows,) = run_slice(exact, {i: v for i, v in disturbed.items() if i not in after}, [answer])
    return rows.astype(np.float64) - values[answer]


def _after(model: Any, tensor: int) -> set[int]:
    """Returns the tensors that depend on ``tensor``."""
    reached = {tensor}
    for operator in model.subgraphs[0].operators:
        if reached.intersection(map(int, operator.inputs)):
            reached.update(map(int, operator.outputs))
    return reached - {tensor}


def _with_all_noise(pair: OpPair, quantized: Any, values: Values, stored: Values) -> Sequence[np.ndarray]:
    signal, out = values[int(pair.exact.outputs[0])], int(pair.quantized.outputs[0])
    return signal, scale_of(quantized, out).real(stored[out]) - signal


def _power(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def _decibel(signal: np.ndarray, noise: np.ndarray) -> float | None:
    noise_power = _power(noise)
    return 10 * math.log10(max(_power(signal), _TINY) / noise_power) if noise_power else None
