"""Runs or resumes a NumPy sweep in this process: ``python -m tests.device_sim.sweep_until_killed DIR SAMPLER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from device_sim.sweep.files import read_sweep, write_best, write_results
from device_sim.sweep.plan import SweepPlan, as_json
from device_sim.sweep.run import Sweep, run_sweep
from device_sim.sweep.search import open_search
from tests.device_sim.numpy_engine import numpy_federation

SEARCH = """
sampler = "{sampler}"
seeds = 2
trials = 12
[experiment]
data = {{ devices = 6 }}
train = {{ rounds = 3, cohort = 3, epochs = 1, batch-size = 0 }}
[search]
train.learning-rate = {{ low = 0.01, high = 1, log = true }}
train.cohort = {{ low = 2, high = 8 }}
data.devices = [6, 8]
upload.codec = ["ecsq", "q8+deflate"]
"""


def plan_in(out: Path, sampler: str) -> SweepPlan:
    out.mkdir(exist_ok=True)
    (out / "sweep.toml").write_text(SEARCH.format(sampler=sampler))
    return read_sweep(out / "sweep.toml")


def sweep_in(out: Path, plan: SweepPlan, told: list[str] | None = None) -> Sweep:
    def watch(title: str, rounds: object, limit: int) -> None:
        if told is not None:
            told.append(title)
        list(rounds)  # type: ignore[call-overload]

    return Sweep(plan.base, plan.seeds, out, watch, open=numpy_federation)


def main(out: Path, sampler: str) -> None:
    plan = plan_in(out, sampler)
    results = run_sweep(sweep_in(out, plan), open_search(plan))
    content = write_results(out, as_json(plan), results, plan.objectives)
    write_best(out / "best.toml", plan.base, results[content["best"]])
    print(json.dumps([len(results), sum(bool(r.failure) for r in results)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
