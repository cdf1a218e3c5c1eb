"""Run folders made of drawn numbers: everything a finished run leaves for the report, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.experiment.toml import parse_experiment
from device_sim.run.folder import RunFolder, create
from device_sim.run.log import Round
from device_sim.run.summary import SCHEMA
from fl_mobile.seeds import rng_for

PROFILES, LINKS = ("flagship", "mid", "low-end"), ("wifi", "5g", "4g", "3g")
KEYS = ("data.dataset=digits", "data.devices=40", "model.name=mlp", "train.cohort=14")


def made_run(
    path: Path,
    *,
    seed: int = 0,
    rounds: int = 12,
    changes: Sequence[str] = (),
    timelines: Sequence[int] = (0, 5),
    evaluated: bool = True,
    finished: bool = True,
    timed: bool = True,
) -> Path:
    """Writes a run folder and returns its path; ``timed`` rounds have clock, energy and skips."""
    folder = create(path, parse_experiment("", [*KEYS, f"seed={seed}", f"train.rounds={rounds}", *changes]))
    made = [made_round(n, seed, timed=timed) for n in range(rounds)]
    write_lines(folder.rounds, map(asdict, made))
    if timelines:
        write_lines(path / "timeline.jsonl", (made_timeline(n, seed) for n in timelines))
    if finished:
        folder.summary.write_text(json.dumps(made_summary(made, seed, evaluated=evaluated)))
    return path


def write_lines(path: Path, values: Any) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def raw_rounds(path: Path) -> list[dict[str, Any]]:
    """Returns the rounds as the file has them, read without the code under test."""
    return [json.loads(line) for line in RunFolder(path).rounds.read_text().splitlines()]


def made_round(number: int, seed: int, *, timed: bool = True) -> Round:
    rng = rng_for(seed, number, "made")
    late, offline = (int(n) for n in rng.integers(0, 4, 2))
    clock: dict[str, Any] = {
        "sim_seconds": 40.0 * (number + 1) + float(rng.uniform(0, 9)),
        "skipped": {"charging": int(rng.integers(0, 9)), "small-update": int(rng.integers(0, 3))},
        "saved_bytes": int(rng.integers(0, 10**6)),
        "joules": float(rng.uniform(50, 5_000)),
    }
    return Round(
        round_num=number,
        accuracy=float(rng.uniform(0.2, 0.9)),
        loss=float(rng.uniform(0.1, 2)),
        train_loss=None if number == 1 else float(rng.uniform(0.1, 2)),
        cohort=14,
        accepted=14 - late - offline,
        dropped={"late": late, "offline": offline},
        upload_bytes=int(rng.integers(10_000, 90_000)),
        download_bytes=int(rng.integers(10_000, 90_000)),
        uploads=14 - offline,
        downloads=14 - offline,
        ratio=None if number == 1 else float(rng.uniform(5, 100)),
        air_seconds=1.0,
        wall_seconds=0.1,
        **(clock if timed else {}),
    )


def made_timeline(number: int, seed: int, devices: int = 14) -> dict[str, Any]:
    rng = rng_for(seed, number, "timeline")
    start = 40.0 * number
    times = start + np.cumsum(rng.uniform(0.5, 20, (3, devices)), axis=0)
    columns: dict[str, list[Any]] = {
        "device": rng.permutation(devices).tolist(),
        "profile": rng.choice(PROFILES, devices).tolist(),
        "link": rng.choice(LINKS, devices).tolist(),
        "asked": [start] * devices,
        **{name: row.tolist() for name, row in zip(("downloaded", "trained", "uploaded"), times, strict=True)},
        "outcome": ["accepted" if t < start + 35 else "late" for t in times[2]],
        "upload_bytes": [2_000] * devices,
        "download_bytes": [4_000] * devices,
        "loss": [0.5] * devices,
        "joules": [9.5] * devices,
    }
    for at, (outcome, missing) in enumerate([("offline", 3), ("interrupted", 2)]):
        columns["outcome"][at] = outcome
        for name in ("uploaded", "trained", "downloaded")[:missing]:
            columns[name][at] = None
    return {"round_num": number, "start": start, "end": start + 35.0, "devices": columns}


def made_spread(seed: int) -> dict[str, Any]:
    accuracies = rng_for(seed, "spread").uniform(0.3, 1, 40)
    counts, edges = np.histogram(accuracies, bins=10, range=(0, 1))
    p10, p50, p90 = np.quantile(accuracies, (0.1, 0.5, 0.9)).tolist()
    worst, mean = float(np.sort(accuracies)[:2].mean()), float(accuracies.mean())
    return {
        "accuracy": {"p10": p10, "p50": p50, "p90": p90, "worst_5_percent": worst, "mean": mean},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def made_summary(rounds: Sequence[Round], seed: int, *, evaluated: bool) -> Mapping[str, Any]:
    evaluation = {
        "examples_per_device": 35,
        **made_spread(seed),
        "personalised": made_spread(seed + 1),
        "personalisation": "fine-tune",
    }
    return {
        "schema": SCHEMA,
        "kept": {"keep": "last", "by": "accuracy", "round": len(rounds) - 1, "beside": None},
        "warnings": [],
        "rounds": len(rounds),
        "stop_reason": f"finished {len(rounds)} rounds",
        "command": "fl-mobile simulate --out 'runs/a b'",
        "engine": "keras, one graph for the cohort",
        "experiment_sha256": "e" * 64,
        "model": {"weights_sha256": "f" * 64},
        "traffic": {"fp32_model_bytes": 220_000},
        "devices": {"population": 40},
        "dataset": {"name": "digits", "fingerprint": "d" * 64, "source": "made in a test"},
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
        "federated_evaluation": evaluation if evaluated else None,
    }
