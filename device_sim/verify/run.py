"""Is a run folder what its summary says? Every claim is computed again from the files it is about.

```
experiment.toml ─ hash ─┐
rounds.jsonl ─ count, sums, last accuracy ─┤
checkpoint.npz ─ round, weights hash ──────┼─▶ summary.json
model.keras ─ weights hash ────────────────┤
bundle/ ─ SHA-256, golden frames, weights ─┘
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.keras_file import read_run_model
from device_sim.run.log import read_rounds
from device_sim.run.summary import read_summary
from export import verify_bundle
from export.bundle.folder import ANYONE, Trust
from export.model.serving import describe, predict
from export.verify.golden import unpack_golden
from fl_mobile.errors import RunError, VerifyError
from fl_mobile.models import keras_bridge
from fl_mobile.server import checkpoint
from fl_mobile.tensors import weights_hash

SAME_MODEL = 1e-4
"""Keras answers of one model may differ so much between processors; another model's differ in the first digit."""


@dataclass(frozen=True)
class Check:
    """One claim that held.

    Attributes:
        part: File or folder it is about.
        proven: What was computed again and found equal.
    """

    part: str
    proven: str


def verify_run(folder: RunFolder, trust: Trust = ANYONE) -> list[Check]:
    """Returns what was proven about a finished run.

    Args:
        folder: The run.
        trust: Whose signature its bundle must bear; nothing else of a run is signed.

    Raises:
        RunError: The folder holds no run, or one that is not finished.
        VerifyError: A file is not what the summary says, or the wanted signature is not there.
    """
    _, experiment = reopen(folder.path)
    summary = read_summary(folder)
    if summary is None:
        raise RunError(f"{folder.path} is not finished: it has no summary.json. Continue it with simulate --resume.")
    try:
        checks = [_experiment(folder, experiment, summary), _rounds(folder, summary)]
        return [*checks, *_models(folder, experiment, summary, trust)]
    except (KeyError, TypeError, AttributeError) as error:
        raise VerifyError(f"{folder.summary} lacks what a summary must say ({error!r})") from None


def _experiment(folder: RunFolder, experiment: Experiment, summary: dict[str, Any]) -> Check:
    found = experiment_hash(experiment)
    _same(folder.experiment.name, "hash of the experiment", summary["experiment_sha256"], found)
    return Check(folder.experiment.name, f"hash {found[:16]}…")


def _rounds(folder: RunFolder, summary: dict[str, Any]) -> Check:
    rounds = read_rounds(folder)
    traffic, name = summary["traffic"], folder.rounds.name
    _same(name, "number of rounds", summary["rounds"], len(rounds))
    for key in ("upload_bytes", "download_bytes", "uploads"):
        _same(name, f"sum of {key}", traffic[key], sum(getattr(r, key) for r in rounds))
    _same(name, "last accuracy", summary["accuracy"], rounds[-1].accuracy if rounds else None)
    _same(name, "best accuracy", summary["best_accuracy"], max(r.accuracy for r in rounds))
    return Check(name, f"{len(rounds)} rounds, {traffic['uploads']} uploads of {traffic['upload_bytes']:,} bytes")


def _models(folder: RunFolder, experiment: Experiment, summary: dict[str, Any], trust: Trust) -> list[Check]:
    told = summary["model"]
    paths = [tensor["path"] for tensor in told["tensors"]]
    model = read_run_model(folder.model, experiment)
    values = keras_bridge.read(model)
    _same(folder.model.name, "number of tensors", len(paths), len(values))
    # A model read from a file may number its layers anew; the summary keeps the paths the run used, in this order.
    found = weights_hash(dict(zip(paths, values.values(), strict=True)))
    _same(folder.model.name, "hash of the weights", told["weights_sha256"], found)
    spec = dict(zip(paths, keras_bridge.spec_of(model).values(), strict=True))
    private = told.get("private", ())
    state, _ = checkpoint.load(folder.checkpoint, {path: spec[path] for path in paths if path not in private})
    whole = {path: state.weights.get(path, value) for path, value in zip(paths, values.values(), strict=True)}
    _same(folder.checkpoint.name, "round", summary["rounds"], state.round_num)
    _same(folder.checkpoint.name, "hash of the weights", told["weights_sha256"], weights_hash(whole))
    checks = [
        Check(folder.checkpoint.name, f"round {state.round_num}, weights {told['weights_sha256'][:16]}…"),
        Check(folder.model.name, f"weights {told['weights_sha256'][:16]}…"),
    ]
    if summary["export"]:
        return [*checks, *_bundle(folder, summary["export"], model, trust)]
    if trust.key or trust.required:
        raise VerifyError(f"{folder.path} has no bundle, so there is no signature to check")
    return checks


def _bundle(folder: RunFolder, told: dict[str, Any], model: Any, trust: Trust) -> list[Check]:
    proof = verify_bundle(folder.bundle, trust=trust)
    replayed = sorted({replay.recipe for replay in proof.replays})
    _same(folder.bundle.name, "artifacts", sorted(a["recipe"] for a in told["artifacts"]), replayed)
    golden = unpack_golden((folder.bundle / "golden.npz").read_bytes())
    dtypes = {name: str(frames.dtype) for name, frames in golden.frames.items()}
    found = predict(model, describe(model, dtypes), dict(golden.frames))
    far = max(float(np.abs(rows - golden.keras[name]).max()) for name, rows in found.items())
    if not far <= SAME_MODEL:
        raise VerifyError(
            f"{folder.bundle.name}: made from another model: on its golden frames {folder.model.name} answers"
            f" up to {far:.3g} apart in probability, allowed {SAME_MODEL:g}"
        )
    worst = max(replay.max_abs_diff for replay in proof.replays)
    runtimes = ", ".join(dict.fromkeys(replay.runtime for replay in proof.replays))
    told_files = f"{proof.files} files; model.keras answers its golden frames; replayed on {runtimes}"
    return [
        Check("signature", str(proof.signature)),
        Check(folder.bundle.name, f"{told_files}, max Δp {worst:.2g}"),
    ]


def _same(part: str, what: str, told: object, found: object) -> None:
    if told != found:
        raise VerifyError(f"{part}: {what} is {found!r}, but summary.json says {told!r}")
