"""Downloads that the Java client must read: `rounds.json`; whole models, deltas, pruned ones, forwarded sums and more.

``python -m tests.android_stub.rounds`` writes the file anew; `test_rounds.py` says whether it is what Python makes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.receive import IN_THE_APP, receive
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.protocol.terms import Blob, terms_to_json
from fl_mobile.seeds import rng_for
from fl_mobile.tensors import Tensors, TensorSpec
from fl_mobile.wire.download import PREDICTION, Download, forwarding_of
from fl_mobile.wire.forward import Sums
from fl_mobile.wire.pruning_mask import PruningPlan, apply_masks, masks_for
from tests.android_stub.drawn import drawn
from tests.android_stub.vectors import digest, values_of

PATH = Path(__file__).parent / "rounds.json"
SPEC = {
    "conv/kernel": TensorSpec((3, 3, 4, 16)),
    "first/kernel": TensorSpec((64, 20)),
    "first/bias": TensorSpec((20,)),
    "norm/moving_mean": TensorSpec((7,), trainable=False),
    "none": TensorSpec((0, 5)),
    "last/kernel": TensorSpec((20, 10)),
}
VERSIONS = (0, 1, 3, 4, 7)
"""Rounds in which the client is asked."""

FIRST = drawn(SPEC, "plain", 50)
"""Weights of version 0."""

PRUNING = PruningPlan(0.7, begin_round=1, end_round=5, zero_run=4, smallest_kernel=512)


def agreement_of(**more: Any) -> Agreement:
    """Returns an agreement of FedAvg with whole models, or as ``more`` says."""
    common = {
        "upload": parse_codec("ecsq"),
        "download": parse_codec("float16"),
        "algorithm": ALGORITHMS["fedavg"].build(),
    }
    return Agreement(spec=SPEC, initial=FIRST, **(common | more))


AGREEMENTS: dict[str, Agreement] = {
    "whole models": agreement_of(),
    "deltas": agreement_of(delta_step=0.01),
    "pruned whole models": agreement_of(pruning=PRUNING),
    "pruned deltas": agreement_of(delta_step=0.01, pruning=PRUNING),
    "forwarded sums": agreement_of(delta_step=0.01, upload=Sketch(256, seed=77), forward=True),
    "prediction": agreement_of(delta_step=0.01, memory="cafe"),
    "noise of the clients' own": agreement_of(bare_packets=True, local_noise=LocalNoise(0.5, 2.0, 30)),
    "scaffold": agreement_of(delta_step=0.01, algorithm=ALGORITHMS["scaffold"].build()),
}
PARAMETERS = {"learning_rate": 1.0}


def weights_at(version: int) -> Tensors:
    """Returns the global model of a version, as it drifts away from the first."""
    moved = drawn(SPEC, "rows and columns", 51)
    return {path: value + np.float32(version) * moved[path] for path, value in FIRST.items()}


def downloads(name: str) -> list[tuple[int, Download]]:
    """Returns what a client is sent that takes part in every round of `VERSIONS`."""
    agreement, out, held = AGREEMENTS[name], [], IN_THE_APP
    for version in VERSIONS:
        download = Download(_model(agreement, version, held.version), **_beside(agreement, version))
        _, held = receive(agreement, download, version=version, held=held)
        out.append((version, download))
    return out


def _model(agreement: Agreement, version: int, held: int) -> bytes:
    lattice, weights, rng = agreement.lattice(version), weights_at(version), rng_for(0, version)
    weights = apply_masks(weights, masks_for(agreement.pruning, weights, SPEC, version))
    if lattice is None:
        header = wire.Header(wire.MODEL, version, version)
        return wire.pack(header, weights, spec=SPEC, codec=agreement.download, rng=rng)
    if (forwarding := forwarding_of(agreement, lattice)) is not None:
        many = np.arange(256, dtype=np.int64).astype(np.int8)
        history = [Sums(3 * (t % 3), (many % 3 - 1 if t % 2 else many)) for t in range(held, version)]
        return forwarding.pack(weights, history, version=version, held_version=held)
    point, before = lattice.point(weights), lattice.start
    if held:
        old = weights_at(held)
        old = apply_masks(old, masks_for(agreement.pruning, old, SPEC, held))
        before = (agreement.lattice(held) or lattice).point(old)
    return lattice.pack(weights, point, before, version=version, held_version=held)


def _beside(agreement: Agreement, version: int) -> dict[str, bytes]:
    rng, values = rng_for(1, version), drawn(SPEC, "sparse", version)
    if agreement.memory == "cafe":
        header = wire.Header(wire.MODEL_DELTA, version, version)
        return {"prediction": wire.pack(header, values, spec=SPEC, codec=PREDICTION, rng=rng)}
    if agreement.algorithm.sends:
        sent = {path: values[path] for path in agreement.beside_spec}
        header = wire.Header(wire.MODEL, version, version)
        return {"beside": wire.pack(header, sent, spec=agreement.beside_spec, codec=agreement.download, rng=rng)}
    return {}


def read(name: str, sent: list[tuple[int, Download]]) -> list[dict[str, str]]:
    """Returns digests of what each download decodes to."""
    agreement, held, out = AGREEMENTS[name], IN_THE_APP, []
    for version, download in sent:
        decoded, held = receive(agreement, download, version=version, held=held)
        told = {"weights": digest(values_of(decoded.weights))}
        if decoded.point is not None:
            told["point"] = digest(b"".join(value.astype("<i4").tobytes() for value in decoded.point.values()))
        if decoded.prediction is not None:
            told["prediction"] = digest(values_of(decoded.prediction))
        if decoded.beside:
            told["beside"] = digest(values_of(decoded.beside))
        out.append(told)
    return out


def rounds() -> dict[str, Any]:
    """Returns the file's value."""
    out = {}
    for name, agreement in AGREEMENTS.items():
        sent = downloads(name)
        terms = terms_to_json(agreement, SPEC, frozenset(), Blob("0" * 64, 0), PARAMETERS)
        lines = [
            {
                "version": version,
                **{part: base64.b64encode(getattr(one, part)).decode() for part in ("model", "prediction", "beside")},
                "digests": told,
            }
            for (version, one), told in zip(sent, read(name, sent), strict=True)
        ]
        out[name] = {"terms": json.loads(terms), "rounds": lines}
    return out


if __name__ == "__main__":
    PATH.write_text(json.dumps(rounds(), indent=0) + "\n", encoding="utf-8")
    print("wrote", PATH)
