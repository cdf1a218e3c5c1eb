"""What a codec costs and what it loses, on updates that are at hand.

Every size is the ``len`` of a packet with its header, tables and checksum; every error is between what was given and
what `wire.unpack` makes of those bytes alone. Nothing is estimated.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs.base import Codec, usual_examples
from fl_mobile.errors import ConfigError, DataError
from fl_mobile.measurements.front import pareto_front
from fl_mobile.seeds import rng_for
from fl_mobile.storage.files import replace_atomic
from fl_mobile.tensors import Spec, Tensors, fp32_bytes

BIAS_LIMIT = 1.5
"""An n-fold mean whose error is more than this times NMSE/n is called biased (a deterministic codec scores n)."""
_EXACT = 1e-12


@dataclass(frozen=True)
class Measurement:
    """One codec on a set of updates.

    Attributes:
        codec: The codec's full name.
        updates: How many updates were sent.
        parameters: Values in each.
        packet_bytes_median: Median packet length.
        packet_bytes_p95: 95th percentile of the packet lengths.
        bits_per_parameter: 8 · all packet bytes / all values.
        ratio: Bytes as bare float32 / packet bytes; larger is better.
        sparsity: Share of decoded values that are zero.
        nmse: Mean of ``‖x − x̂‖²/‖x‖²`` over the updates.
        nmse_of_mean: The same between the mean update and the mean of the decoded ones: what a server loses.
        bias: Error of the mean of n encodings of one update, over NMSE/n: about 1 if unbiased, n if deterministic.
        unbiased: Whether that is below `BIAS_LIMIT`, or there is no error at all.
        claims_unbiased: What the codec says of itself.
        encode_mb_s: Float32 megabytes packed a second on this machine, median.
        decode_mb_s: Float32 megabytes unpacked a second, median.
    """

    codec: str
    updates: int
    parameters: int
    packet_bytes_median: float
    packet_bytes_p95: float
    bits_per_parameter: float
    ratio: float
    sparsity: float
    nmse: float
    nmse_of_mean: float
    bias: float
    unbiased: bool
    claims_unbiased: bool
    encode_mb_s: float
    decode_mb_s: float

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for ``json.dumps``; a value that is not finite becomes None."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def measure_codec(
    codec: Codec, updates: Sequence[Tensors], spec: Spec, *, seed: int = 0, repeats: int = 16
) -> Measurement:
    """Returns what ``codec`` does to ``updates``, each sent as one packet.

    Args:
        codec: The codec.
        updates: At least one; all of ``spec``.
        spec: The agreed spec; what it marks as not trainable travels exactly.
        seed: Of the codec's rounding.
        repeats: n of the bias test, which sends the first update n times.

    Raises:
        DataError: No update, or none with any value.
        SpecMismatch: An update is not of ``spec``.
        DivergedError: An update holds NaN or Inf.
    """
    parameters = sum(t.size for t in spec.values())
    if not updates or not parameters:
        raise DataError(f"there is nothing to measure: {len(updates)} updates of {parameters} values")
    if repeats < 2:
        raise ConfigError(f"the bias test needs at least 2 repeats, got {repeats}")
    sent = [_send(codec=codec, update=update, spec=spec, seed=seed, index=i) for i, update in enumerate(updates)]
    sizes = [len(s.packet) for s in sent]
    bias, unbiased = _bias(codec=codec, update=updates[0], spec=spec, seed=seed, repeats=repeats)
    zeros = sum(int(np.count_nonzero(v == 0)) for s in sent for v in s.decoded.values())
    megabytes = fp32_bytes(spec) / 1e6
    return Measurement(
        codec=codec.name,
        updates=len(updates),
        parameters=parameters,
        packet_bytes_median=float(statistics.median(sizes)),
        packet_bytes_p95=float(np.percentile(sizes, 95)),
        bits_per_parameter=8 * sum(sizes) / (parameters * len(sizes)),
        ratio=fp32_bytes(spec) * len(sizes) / sum(sizes),
        sparsity=zeros / (parameters * len(sizes)),
        nmse=statistics.fmean(nmse(u, s.decoded) for u, s in zip(updates, sent, strict=True)),
        nmse_of_mean=nmse(_mean(updates), _mean([s.decoded for s in sent])),
        bias=bias,
        unbiased=unbiased,
        claims_unbiased=codec.unbiased,
        encode_mb_s=megabytes / statistics.median(s.encode_seconds for s in sent),
        decode_mb_s=megabytes / statistics.median(s.decode_seconds for s in sent),
    )


def nmse(given: Tensors, decoded: Tensors) -> float:
    """Returns ``‖x − x̂‖²/‖x‖²`` over all tensors, in float64; an update of zeros scores 0 if it stays one, else Inf.

    >>> nmse({"w": np.array([3.0, 4.0])}, {"w": np.array([3.0, 3.0])})
    0.04
    """
    error = sum(_squares(given[p].astype(np.float64) - decoded[p]) for p in given)
    energy = sum(_squares(v) for v in given.values())
    if not energy:
        return math.inf if error else 0.0
    return error / energy


def shannon_nmse(bits: float) -> float:
    """Returns the least NMSE any codec can have on Gaussian values at ``bits`` each: ``4^−b`` (Shannon 1959).

    >>> shannon_nmse(2)
    0.0625
    """
    return float(4.0**-bits)


def shannon_nmse_unbiased(bits: float) -> float:
    """Returns the least NMSE of an unbiased codec: ``1/(4^b − 1)``; shrinking its output would give a biased one.

    >>> round(shannon_nmse_unbiased(0.1), 2)
    6.73
    """
    return 1 / (4.0**bits - 1)


def excess_bits(bits: float, error: float, *, unbiased: bool) -> float:
    """Returns bits per value above the Gaussian bound at this NMSE; ≥ 0 for any codec on Gaussian values.

    >>> round(excess_bits(1.0, 0.5708, unbiased=True), 2)
    0.27
    """
    return bits - 0.5 * math.log2(1 + 1 / error if unbiased else 1 / error)


def pareto_plot(measurements: Sequence[Measurement], path: Path, title: str = "") -> None:
    """Draws NMSE against bits per parameter with both Gaussian bounds; ``path`` ends in ``.png`` or ``.svg``.

    Real updates are not Gaussian, so codecs may fall below the lines there. Codecs without error have no place on the
    logarithmic axis and are listed below it.

    Raises:
        ConfigError: Another suffix, nothing to draw, or matplotlib is not installed.
    """
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"a plot is .png or .svg, got '{path.name}'")
    shown = [m for m in measurements if _EXACT < m.nmse < math.inf]
    if not shown:
        raise ConfigError("there is nothing to draw: no codec with an error above 0 was measured")
    figure = new_figure((9, 6))
    axes = figure.subplots()
    _draw(axes, shown)
    exact = ", ".join(f"{m.codec} ({m.bits_per_parameter:.3g})" for m in measurements if m.nmse <= _EXACT)
    axes.set(
        xscale="log",
        yscale="log",
        title=title,
        xlabel="bits per parameter, whole packet" + (f"\nwithout error: {exact}" if exact else ""),
        ylabel="NMSE",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    metadata = {"Date": None} if path.suffix == ".svg" else None  # the same figure is the same file
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "fl-mobile"}):
        replace_atomic(path, lambda tmp: figure.savefig(tmp, dpi=150, metadata=metadata))


def new_figure(size: tuple[float, float]) -> Any:
    """Returns a matplotlib figure of ``size`` inches that draws to files only; a notebook's own plots stay as they are.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'fl-mobile[demo]'") from None
    return Figure(figsize=size, layout="constrained")


@dataclass(frozen=True)
class _Sent:
    packet: bytes
    decoded: Tensors
    encode_seconds: float
    decode_seconds: float


def _send(codec: Codec, update: Tensors, spec: Spec, seed: int, index: int, *, round_num: int = 0) -> _Sent:
    rng = rng_for(seed, index, "measure")
    start = time.perf_counter()
    header = wire.Header(wire.UPDATE, round_num, round_num, usual_examples(codec))
    packet = wire.pack(header, update, spec=spec, codec=codec, rng=rng)
    packed = time.perf_counter()
    decoded = wire.unpack(packet, spec, codec).tensors
    return _Sent(packet, decoded, packed - start, time.perf_counter() - packed)


def _bias(codec: Codec, update: Tensors, spec: Spec, seed: int, repeats: int) -> tuple[float, bool]:
    """Returns the error of an n-fold mean over NMSE/n, and whether that speaks for an unbiased codec."""
    total = {path: np.zeros(t.shape) for path, t in spec.items()}
    single = 0.0
    for i in range(repeats):  # one at a time: memory must not grow with n; each in a round of its own, as in a run
        decoded = _send(codec=codec, update=update, spec=spec, seed=seed, index=-1 - i, round_num=i).decoded
        single += nmse(update, decoded) / repeats
        total = {path: value + decoded[path] for path, value in total.items()}
    if single <= _EXACT:
        return 1.0, True
    bias = nmse(update, {path: value / repeats for path, value in total.items()}) * repeats / single
    return bias, bias < BIAS_LIMIT


def _draw(axes: Any, shown: Sequence[Measurement]) -> None:
    bits = np.geomspace(min(m.bits_per_parameter for m in shown) / 1.5, max(m.bits_per_parameter for m in shown), 200)
    axes.plot(bits, [shannon_nmse(b) for b in bits], color="grey", label="Shannon, Gaussian: 4^−b")
    axes.plot(bits, [shannon_nmse_unbiased(b) for b in bits], ":", color="grey", label="unbiased: 1/(4^b − 1)")
    front = pareto_front(shown, lambda m: (m.nmse, m.bits_per_parameter))
    axes.plot(
        [m.bits_per_parameter for m in front], [m.nmse for m in front], "--", color="tab:green", label="best here"
    )
    for unbiased, marker, label in ((True, "o", "unbiased codec"), (False, "s", "biased codec")):
        axes.scatter(*_coordinates([m for m in shown if m.unbiased == unbiased]), marker=marker, label=label)
    for m in shown:
        at = (m.bits_per_parameter, m.nmse)
        axes.annotate(m.codec, at, textcoords="offset points", xytext=(4, 4), fontsize=7, rotation=15)
    axes.set_xlim(bits[0], 2.5 * bits[-1])  # room for the last label


def _coordinates(measurements: Sequence[Measurement]) -> tuple[list[float], list[float]]:
    return [m.bits_per_parameter for m in measurements], [m.nmse for m in measurements]


def _mean(updates: Sequence[Tensors]) -> Tensors:
    return {p: np.asarray(sum(u[p].astype(np.float64) for u in updates) / len(updates)) for p in updates[0]}


def _squares(values: np.ndarray) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))
