"""A run in numbers: the one record that `summary.json`, the closing table and the report are made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from device_sim.client_data.given import AskedData
from device_sim.datasets import DATASETS
from device_sim.experiment.experiment import experiment_hash
from device_sim.federation.dealing import dealt_as
from device_sim.federation.federation import Federation
from device_sim.run.best import Kept, beside_name
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round, Score, scores_of
from device_sim.run.loop import stop_reason
from device_sim.run.privacy import privacy_of
from export.report.report import tool_versions
from fl_mobile.errors import RunError
from fl_mobile.tasks import task_row, told
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import fp32_bytes, weights_hash

SCHEMA = 2


def summarise(
    federation: Federation, rounds: Sequence[Round], kept: Kept, beside: Kept | None, *, command: str
) -> dict[str, Any]:
    """Returns what ``summary.json`` says about a run, in JSON types.

    Byte counts are sums of real packet lengths. ``…_per_device`` divides by the whole population, because that is
    what a phone's owner pays on average; ``…_per_participation`` by the transfers that took place.

    Args:
        rounds: All finished rounds, at least one.
        kept: The model that is ``model.keras``; accuracy and loss are of its round.
        beside: The other one, of the last or the best round.
        command: The command line that made the run.
    """
    scores = scores_of(rounds)
    best, now = max(scores, key=lambda s: s.accuracy), next(s for s in scores if s.round_num == kept.round_num)
    weights = federation.whole(kept.weights)
    dataset, spec = federation.dataset, federation.spec
    return {
        "schema": SCHEMA,
        "task": _task(federation),
        "metrics": next((r.metrics for r in rounds if r.round_num == kept.round_num), {}),
        "accuracy_name": _accuracy_name(federation),
        "accuracy": now.accuracy,
        "best_accuracy": best.accuracy,
        "best_round": best.round_num,
        "loss": now.loss,
        "rounds": len(rounds),
        "kept": _kept(federation, scores, kept, beside),
        "stop_reason": stop_reason(federation.experiment, rounds),
        "sim_seconds": rounds[-1].sim_seconds,
        "joules": sum(r.joules for r in rounds),
        "skipped": dict(sorted(sum((Counter(r.skipped) for r in rounds), Counter()).items())),
        "saved_bytes": sum(r.saved_bytes for r in rounds),
        "engine": federation.engine.about,
        "traffic": _traffic(rounds, fp32_bytes(spec), federation.data.population, dataset.statistics_bytes),
        "devices": _devices(rounds, federation.data.population),
        "attack": _attack(federation, rounds),
        "privacy": privacy_of(federation, rounds),
        "model": {
            "name": federation.experiment.model.name,
            "parameters": sum(t.size for t in federation.engine.spec.values()),
            "private": sorted(federation.private),
            "weights_sha256": weights_hash(weights),
            "tensors": [{"path": path, "shape": list(value.shape)} for path, value in weights.items()],
        },
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "partition": dealt_as(federation.experiment, dataset),
            "fingerprint": dataset.fingerprint,
            "train_examples": None if isinstance(federation.data, AskedData) else len(dataset.train),
            "test_examples": len(dataset.test),
        },
        "experiment_sha256": experiment_hash(federation.experiment),
        "versions": tool_versions(),
        "command": command,
        "wall_seconds": round(sum(r.wall_seconds for r in rounds), 3),
        "export": None,
    }


def _task(federation: Federation) -> dict[str, Any]:
    """Returns the task, and what `fl_mobile.models.finish.with_answers` puts behind the model on a phone."""
    dataset, scaling = federation.dataset, federation.dataset.scaling
    return {
        "name": dataset.task,
        "because": dataset.why,
        "inputs": [port.text for port in dataset.ports],
        "loss_name": federation.plain_plan(0).loss,
        "from_logits": federation.engine.from_logits,
        "mean": [] if scaling is None else scaling.target_mean.tolist(),
        "spread": [] if scaling is None else scaling.target_spread.tolist(),
        "standardized_by": "" if scaling is None else scaling.source,
    }


def _accuracy_name(federation: Federation) -> str:
    if federation.dataset.task == CLASSIFICATION:
        return DATASETS[federation.experiment.data.dataset].accuracy_name
    return task_row(federation.dataset.task).score_name


def _kept(federation: Federation, scores: Sequence[Score], kept: Kept, beside: Kept | None) -> dict[str, Any]:
    """Returns which round ``model.keras`` is of, and what lies beside it."""
    output = federation.experiment.output
    other = None
    if beside:
        score = next(s for s in scores if s.round_num == beside.round_num)
        other = {
            "file": beside_name(output.keep),
            "round": beside.round_num,
            "accuracy": score.accuracy,
            "loss": score.loss,
            "weights_sha256": weights_hash(federation.whole(beside.weights)),
        }
    return {"keep": output.keep, "by": output.keep_by, "round": kept.round_num, "beside": other}


def kept_told(summary: Mapping[str, Any]) -> str:
    """Returns why ``model.keras`` is of its round, and what lies beside it."""
    kept, beside = summary["kept"], summary["kept"]["beside"]
    which = {"last": "the last", "best": f"the best by {kept['by']}"}
    if beside is None:
        return f"{which['last']}, and {which['best']}"
    score = told(str(summary.get("task", {}).get("name", CLASSIFICATION)), beside["accuracy"])
    other = f"{which['best' if kept['keep'] == 'last' else 'last']}, round {beside['round'] + 1}"
    return f"{which[kept['keep']]}; {other} with {score}, is {beside['file']}"


def _traffic(rounds: Sequence[Round], model_bytes: int, population: int, statistics: int) -> dict[str, Any]:
    """Returns bytes and seconds.

    Args:
        statistics: Bytes that devices sent before round 1, so that constants of the graph are known.
    """
    up, down = sum(r.upload_bytes for r in rounds), sum(r.download_bytes for r in rounds)
    uploads = sum(r.uploads for r in rounds)
    downloads = sum(r.downloads for r in rounds)
    return {
        "fp32_model_bytes": model_bytes,
        "upload_bytes": up,
        "download_bytes": down,
        "uploads": uploads,
        "downloads": downloads,
        "upload_ratio": model_bytes * uploads / up if up else None,
        "download_ratio": model_bytes * downloads / down if down else None,
        "upload_bytes_per_device": (up + statistics) / population,
        "download_bytes_per_device": down / population,
        "upload_bytes_per_participation": up / uploads if uploads else None,
        "download_bytes_per_participation": down / downloads if downloads else None,
        "air_seconds": sum(r.air_seconds for r in rounds),
        "statistics_bytes": statistics,
    }


def _devices(rounds: Sequence[Round], population: int) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for done in rounds:
        dropped.update(done.dropped)
    return {
        "population": population,
        "asked": sum(r.cohort for r in rounds),
        "accepted": sum(r.accepted for r in rounds),
        "dropped": dict(sorted(dropped.items())),
    }


def _attack(federation: Federation, rounds: Sequence[Round]) -> dict[str, Any] | None:
    """Returns who attacked and what came of it; None if nobody did."""
    if federation.attackers is None:
        return None
    counts: Counter[str] = Counter()
    for done in rounds:
        counts.update(done.malicious)
    return {
        "name": federation.experiment.attack.name,
        "malicious_devices": int(federation.attackers.malicious.sum()),
        **{name: counts[name] for name in ("asked", "accepted", "refused")},
        "backdoor_success": next((r.backdoor for r in reversed(rounds) if r.backdoor is not None), None),
    }


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """Returns the summary of a finished run, None if it has none yet.

    Raises:
        RunError: The file is damaged.
    """
    if not folder.summary.exists():
        return None
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        if not isinstance(summary, dict) or not isinstance(summary["rounds"], int):
            raise ValueError("it holds no run")
        found = summary.get("schema")
    except (ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{folder.summary}: damaged ({error}). Remove it and run again with --resume.") from None
    if found != SCHEMA:
        raise RunError(
            f"{folder.summary}: of another version of fl-mobile (schema {found!r}, this one reads {SCHEMA})."
            " Use that version, or remove the file and write it anew with --resume."
        )
    return summary
