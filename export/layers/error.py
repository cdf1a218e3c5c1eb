"""How much noise quantisation adds in each layer, and how much of it reaches the answer.

The noise of one layer is what its quantised operation answers minus what the float32 one answers, both given the same
rounded input, so that no layer is blamed for another's. It is measured twice: against the layer's own signal, and
against the answer's when the float32 network goes on from there. Only the second tells which layer to keep in float:
a tensor with one wild channel has a fine ratio of its own while all its other channels are rounded away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.layers.names import FloatTwin
from export.layers.onward import Onward
from export.layers.pairs import OpPair, paired
from export.layers.run import Values, every_tensor, run_alone, scale_of
from export.tflite.editing import activations, op_name, read_model
from export.tflite.graph import Artifact, read_graph

_LAST_ACTIVATIONS = frozenset({"SOFTMAX", "LOGISTIC"})
# Noise of each of n operations runs through the rest of the network: n² / 2 operations a frame, 28,800 for the 240 of
# EfficientNetB0, where an answer takes 240. So large models are measured on fewer frames, the mean over which decides.
_MOST_RUNS, _LEAST_FRAMES = 800, 3
_MOST_BYTES = 2**26
"""What operations that are run side by side may read and write, of one frame."""
_TINY = 1e-30  # power of a layer that is silent on all frames


@dataclass(frozen=True)
class LayerError:
    """One quantised operation against its float32 twin. Ratios are in dB, larger is better; None adds no noise.

    Attributes:
        layer: Keras layer, ``"block/conv"`` when nested; empty for operations of no layer.
        op: Name in the schema.
        own_snr_db: Signal to the layer's own noise, at its end.
        answer_snr_db: Signal to the layer's own noise, at the logits, everything else in float32. Of several outputs
            the mean of their noise-to-signal ratios.
        total_snr_db: Signal to all noise up to here, at the layer's end, as the artifact runs.
        noise_share: Of what the own noise of all operations makes at the logits, added as powers: 0..1.
    """

    layer: str
    op: str
    own_snr_db: float | None
    answer_snr_db: float | None
    total_snr_db: float | None
    noise_share: float


def layer_errors(artifact: Artifact, twin: FloatTwin, frames: Mapping[str, np.ndarray]) -> tuple[LayerError, ...]:
    """Returns the noise of every operation of ``artifact`` that adds any, in execution order.

    The last softmax or sigmoid is left out: its rounding comes after the answer is decided.

    Args:
        artifact: The quantised one.
        twin: Float32 artifact of the same weights.
        frames: Input name → ``[n, ...]`` in the artifacts' input dtype; 16 typical ones are enough.

    Raises:
        VerifyError: The two artifacts do not hold the same operations.
    """
    graph = read_graph(artifact)
    exact, quantized = twin.model, read_model(graph)
    answers = _answers(exact)
    found, pairs = [], paired(exact, quantized)
    frames = {name: part[: max(_LEAST_FRAMES, _MOST_RUNS // len(pairs))] for name, part in frames.items()}
    values, stored = every_tensor(twin.graph, exact, frames), every_tensor(graph, quantized, frames)
    onward = Onward(exact, values, answers.values())
    # Without the last activation, and masks of an embedding or places, which quantisation leaves alone.
    measured = [
        pair
        for pair in pairs
        if answers.get(out := int(pair.exact.outputs[0]), out) == out and values[out].dtype.kind == "f"
    ]
    for pair, signal, noise in _own_noises(measured, exact, quantized, values):
        if noise.any():
            found.append((pair, _ratio(signal, noise), _at_answers(onward, pair, values, noise)))
    total = sum(at_answers for *_, at_answers in found) or _TINY
    return tuple(
        LayerError(
            layer=twin.layer(pair.tensor),
            op=pair.op,
            own_snr_db=_decibel(own),
            answer_snr_db=_decibel(at_answers),
            total_snr_db=_decibel(_with_all_noise(pair, quantized, values, stored)),
            noise_share=at_answers / total,
        )
        for pair, own, at_answers in found
    )


def advice(errors: Iterable[LayerError]) -> str:
    """Returns which layer to keep in float first, as one sentence; empty when there is nothing to tell.

    >>> advice([LayerError("conv", "CONV_2D", 30.0, 24.0, 28.0, 0.8), LayerError("fc", "DENSE", 40.0, 30.0, 27.0, 0.2)])
    "Layer 'conv' adds 80% of the noise at the answer; if accuracy is lost, try --keep-float conv."
    """
    worst = worst_layer(errors)
    if worst is None:
        return ""
    name, share = worst
    return f"Layer {name!r} adds {share:.0%} of the noise at the answer; if accuracy is lost, try --keep-float {name}."


def worst_layer(errors: Iterable[LayerError]) -> tuple[str, float] | None:
    """Returns the layer that adds most of the noise at the answer, with its share; None where no layer adds any."""
    return next(iter(ranked_layers(errors)), None)


def ranked_layers(errors: Iterable[LayerError]) -> list[tuple[str, float]]:
    """Returns the layers with their shares of the noise at the answer, the largest first."""
    shares: dict[str, float] = {}
    for error in errors:
        if error.layer:
            shares[error.layer] = shares.get(error.layer, 0.0) + error.noise_share
    return sorted(shares.items(), key=lambda item: -item[1])


def _own_noises(
    pairs: Sequence[OpPair], exact: Any, quantized: Any, values: Values
) -> Iterator[tuple[OpPair, np.ndarray, np.ndarray]]:
    """Yields signal and noise of every operation, ``[n, ...]`` each."""
    for group in _groups(pairs, exact, values):
        jobs, twins = [], []
        for pair in group:
            sources, ends = activations(exact, pair.exact.inputs), activations(quantized, pair.quantized.inputs)
            scales = [scale_of(quantized, end) for end in ends]
            stored = [scale.stored(values[index]) for scale, index in zip(scales, sources, strict=True)]
            jobs.append((pair.quantized, dict(zip(ends, stored, strict=True))))
            rounded = {
                index: scale.real(value).astype(values[index].dtype)
                for index, scale, value in zip(sources, scales, stored, strict=True)
            }
            twins.append((pair.exact, rounded))
        for pair, rows, signal in zip(group, run_alone(quantized, jobs), run_alone(exact, twins), strict=True):
            # In float32 both, or the mere moving of rounded values (pooling, reshape) would seem to add noise.
            real = scale_of(quantized, int(pair.quantized.outputs[0])).real(rows).astype(signal.dtype)
            yield pair, signal.astype(np.float64), real - signal


def _groups(pairs: Sequence[OpPair], exact: Any, values: Values) -> Iterator[list[OpPair]]:
    """Yields operations in order, as many at a time as memory is spent on."""
    group: list[OpPair] = []
    held = 0
    for pair in pairs:
        ends = [*activations(exact, pair.exact.inputs), int(pair.exact.outputs[0])]
        size = sum(values[index][0].nbytes for index in ends)
        if group and held + size > _MOST_BYTES:
            yield group
            group, held = [], 0
        group.append(pair)
        held += size
    if group:
        yield group


def _answers(exact: Any) -> dict[int, int]:
    """Returns outputs that a softmax or sigmoid makes → its input, and every other output → itself.

    The keys that are not their own value are results of operations that come after the answer.
    """
    graph = exact.subgraphs[0]
    made_by = {int(operator.outputs[0]): operator for operator in graph.operators}
    found = {}
    for end in map(int, graph.outputs):
        operator = made_by.get(end)
        last = operator is not None and op_name(exact, operator) in _LAST_ACTIVATIONS
        found[end] = int(operator.inputs[0]) if last and operator is not None else end
    return found


def _at_answers(onward: Onward, pair: OpPair, values: Values, noise: np.ndarray) -> float:
    """Returns the mean noise-to-signal ratio that ``noise`` at the end of one operation makes at the answers."""
    out = int(pair.exact.outputs[0])
    found = onward.with_noise(out, noise)
    ratios = [_ratio(values[answer], rows.astype(np.float64) - values[answer]) for answer, rows in found.items()]
    return sum(ratios) / len(onward.answers)


def _with_all_noise(pair: OpPair, quantized: Any, values: Values, stored: Values) -> float:
    signal, out = values[int(pair.exact.outputs[0])], int(pair.quantized.outputs[0])
    return _ratio(signal, scale_of(quantized, out).real(stored[out]) - signal)


def _ratio(signal: np.ndarray, noise: np.ndarray) -> float:
    """Returns noise over signal, as powers."""
    power, noise_power = (float(np.square(x, dtype=np.float64).sum()) for x in (signal, noise))
    return noise_power / max(power, _TINY)


def _decibel(ratio: float) -> float | None:
    return -10 * math.log10(ratio) if ratio else None
