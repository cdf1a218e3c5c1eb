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

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.run.best import beside_name
from device_sim.run.folder import RunFolder, reopen
from device_sim.run.keras_file import read_run_model
from device_sim.run.log import read_rounds, scores_of
from device_sim.run.summary import read_summary
from export import verify_bundle
from export.bundles.folder import ANYONE, Trust
from export.model.serving import SIGNATURE, describe, predict
from export.tflite.graph import read_graph
from export.verify.golden import unpack_golden
from fl_mobile.codecs import own_parts
from fl_mobile.errors import ConfigError, RunError, VerifyError
from fl_mobile.models import keras_bridge
from fl_mobile.models.ends import port_of
from fl_mobile.models.finish import with_answers, with_ends
from fl_mobile.server import checkpoint
from fl_mobile.table import is_own
from fl_mobile.tasks import heads_of
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import weights_hash

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


def verify_run(folder: RunFolder, trust: Trust = ANYONE, *, trust_code: bool = False) -> list[Check]:
    """Returns what was proven about a finished run.

    Args:
        folder: The run.
        trust: Whose signature its bundle must bear; nothing else of a run is signed.
        trust_code: Import and run the code that the experiment names, e.g. its model function.

    Raises:
        ConfigError: The experiment names code, and nobody said to trust it.
        RunError: The folder holds no run, or one that is not finished.
        VerifyError: A file is not what the summary says, or the wanted signature is not there.
    """
    if not trust_code:
        _refuse_code(folder)
    _, experiment = reopen(folder.path)
    summary = read_summary(folder)
    if summary is None:
        raise RunError(f"{folder.path} is not finished: it has no summary.json. Continue it with simulate --resume.")
    try:
        checks = [_experiment(folder, experiment, summary), _rounds(folder, summary)]
        return [*checks, *_models(folder, experiment, summary, trust)]
    except (KeyError, TypeError, AttributeError) as error:
        raise VerifyError(f"{folder.summary} lacks what a summary must say ({error!r})") from None


_NO_CODE = ("codec", "path", "file", "weights", "license")
"""Ends of keys whose values may have colons and name no code."""


def _refuse_code(folder: RunFolder) -> None:
    """Raises `ConfigError` if opening the experiment would import a module that the run's maker chose."""
    try:
        raw = tomllib.loads(folder.experiment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # `reopen` says what is wrong with it
    for key, value in _texts(raw):
        if is_own(value) if not key.endswith(_NO_CODE) else key.endswith("codec") and own_parts(value):
            raise ConfigError(
                f"{folder.experiment}: {key} = '{value}' names code that verify would import and run. Read it first;"
                " if you trust who made this run, say --trust-code."
            )


def _texts(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _texts(value, f"{path}{key}.")
        else:
            yield from (
                (path + key, one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)
            )


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
    scores = {score.round_num: score.accuracy for score in scores_of(rounds)}
    _same(name, "accuracy of the kept round", summary["accuracy"], scores.get(summary["kept"]["round"]))
    _same(name, "best accuracy", summary["best_accuracy"], max(scores.values(), default=None))
    return Check(name, f"{len(rounds)} rounds, {traffic['uploads']} uploads of {traffic['upload_bytes']:,} bytes")


def _models(folder: RunFolder, experiment: Experiment, summary: dict[str, Any], trust: Trust) -> list[Check]:
    told, beside = summary["model"], summary["kept"]["beside"]
    paths = [tensor["path"] for tensor in told["tensors"]]
    model = _model(folder.model, experiment, paths, told["weights_sha256"])
    values = keras_bridge.read(model)
    spec = dict(zip(paths, keras_bridge.spec_of(model).values(), strict=True))
    private = told.get("private", ())
    state, _ = checkpoint.load(folder.checkpoint, {path: spec[path] for path in paths if path not in private})
    whole = {path: state.model.get(path, value) for path, value in zip(paths, values.values(), strict=True)}
    _same(folder.checkpoint.name, "round", summary["rounds"], state.round_num)
    last = told if beside is None or beside["round"] != state.round_num - 1 else beside
    _same(folder.checkpoint.name, "hash of the weights", last["weights_sha256"], weights_hash(whole))
    checks = [
        Check(folder.checkpoint.name, f"round {state.round_num}, weights {last['weights_sha256'][:16]}…"),
        Check(folder.model.name, f"weights {told['weights_sha256'][:16]}…"),
    ]
    if beside:
        _model(folder.path / beside_name(summary["kept"]["keep"]), experiment, paths, beside["weights_sha256"])
        checks.append(Check(beside_name(summary["kept"]["keep"]), f"weights {beside['weights_sha256'][:16]}…"))
    if summary["export"]:
        return [*checks, *_bundle(folder, summary["export"], model, trust, summary.get("task", {}))]
    if trust.key or trust.required:
        raise VerifyError(f"{folder.path} has no bundle, so there is no signature to check")
    return checks


def _model(path: Path, experiment: Experiment, paths: Sequence[str], expected: str) -> Any:
    """Returns the Keras model in a file, its weights compared with their hash in the summary."""
    model = read_run_model(path, experiment)
    values = keras_bridge.read(model)
    _same(path.name, "number of tensors", len(paths), len(values))
    # A model read from a file may number its layers anew; the summary keeps the paths the run used, in this order.
    _same(path.name, "hash of the weights", expected, weights_hash(dict(zip(paths, values.values(), strict=True))))
    return model


def _bundle(folder: RunFolder, told: dict[str, Any], model: Any, trust: Trust, task: dict[str, Any]) -> list[Check]:
    proof = verify_bundle(folder.bundle, trust=trust)
    replayed = sorted({replay.recipe for replay in proof.replays})
    _same(folder.bundle.name, "artifacts", sorted(a["recipe"] for a in told["artifacts"]), replayed)
    golden = unpack_golden((folder.bundle / "golden.npz").read_bytes())
    classes = json.loads((folder.bundle / "report.json").read_bytes())["labels"]
    dtypes = {name: str(frames.dtype) for name, frames in golden.frames.items()}
    entries = read_graph((folder.bundle / f"{replayed[0]}.tflite").read_bytes()).signature(SIGNATURE).inputs
    name, loss, ports = task.get("name", CLASSIFICATION), task.get("loss_name", ""), task.get("inputs", ())
    if ports or heads_of(name):
        model = with_ends(model, [port_of(text) for text in ports], name, loss=loss)
    else:
        model = with_answers(
            model,
            name,
            loss=loss,
            from_logits=task.get("from_logits", True),
            mean=task.get("mean", ()),
            spread=task.get("spread", ()),
        )
    serving = describe(model, dtypes, classes=bool(classes), batch=entries[0].shape[0])
    found = predict(model, serving, dict(golden.frames))
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
