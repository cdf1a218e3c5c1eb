"""Accuracy against bytes: every arm of a sweep on the same seeds, data and cohorts, so that only the codec differs.

An *arm* is a codec, with further keys after semicolons: ``ecsq``, ``ecsq:step=16``,
``ecsq:rounding=rdo,step=1;upload.memory=error-feedback``. The first arm is the one the others are compared with.

```
arms × seeds ─▶ simulate, each in its own run folder (finished ones are skipped, killed ones go on) ─▶ table, plot
```
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_sim.experiment import Experiment, experiment_hash
from device_sim.experiment_file import parse_experiment, to_toml
from device_sim.federation import open_federation
from device_sim.run_folder import RunFolder, create, locked, read_rounds, reopen
from device_sim.simulate import Round, simulate, stop_reason
from fl_mobile.errors import ConfigError
from fl_mobile.files import write_json

FINAL_ROUNDS = 10
"""Accuracy of a run is the mean over its last rounds: single rounds of non-IID training jump by a point."""


@dataclass(frozen=True)
class ArmResult:
    """One arm over all seeds; means over seeds unless said otherwise.

    Attributes:
        arm: As it was given.
        accuracy: Mean over the last `FINAL_ROUNDS` rounds, 0 to 1.
        accuracy_sd: Standard deviation over seeds; 0 for one seed.
        difference: Accuracy minus the first arm's, paired by seed, in points.
        difference_sd: Its standard deviation over seeds.
        upload_bytes: Mean packet length.
        upload_ratio: fp32 bytes / mean packet length.
        download_ratio: fp32 bytes / mean download.
        total_bytes: Up and down, all devices, whole run.
        rounds_to_target: First round whose accuracy reaches the target, per seed; None where it never does.
        bytes_to_target: Up and down until then, per seed.
    """

    arm: str
    accuracy: float
    accuracy_sd: float
    difference: float
    difference_sd: float
    upload_bytes: float
    upload_ratio: float
    download_ratio: float
    total_bytes: float
    rounds_to_target: tuple[int | None, ...]
    bytes_to_target: tuple[int | None, ...]


def arm_changes(arm: str) -> list[str]:
    """Returns the --set changes an arm stands for.

    >>> arm_changes("ecsq:step=4;upload.memory=cafe")
    ['upload.codec=ecsq:step=4', 'upload.memory=cafe']
    """
    codec, *rest = (part.strip() for part in arm.split(";"))
    if not codec or not all(re.match(r"[\w.-]+=", part) for part in rest):
        raise ConfigError(f"arm '{arm}': expected CODEC or CODEC;key=value;…, e.g. ecsq;upload.memory=cafe")
    return [f"upload.codec={codec}", *rest]


def experiments_of(base: Experiment, arms: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Experiment]:
    """Returns every arm's experiment for every seed.

    Raises:
        ConfigError: An arm that is no valid experiment, or two arms that are the same one.
    """
    if not arms or not seeds:
        raise ConfigError("a sweep needs at least one codec and one seed")
    text = to_toml(base)
    out = {
        (arm, seed): parse_experiment(text, [*arm_changes(arm), f"seed={seed}", "output.keep-updates=0"], where=arm)
        for arm in arms
        for seed in seeds
    }
    if len({experiment_hash(e) for e in out.values()}) < len(arms) * len(seeds):
        raise ConfigError("two arms or seeds of the sweep are the same experiment; give each once")
    return out


def run_sweep(
    experiments: dict[tuple[str, int], Experiment], out: Path, watch: Callable[[str, Iterator[Round], int], None]
) -> dict[tuple[str, int], list[Round]]:
    """Runs or resumes what is missing and returns every run's rounds.

    Args:
        out: One run folder per arm and seed below it.
        watch: Is given a title, the rounds to consume, and how many there will be at most.

    Raises:
        RunError: A folder belongs to another experiment.
    """
    for (arm, seed), experiment in experiments.items():
        path = out / folder_name(arm) / f"seed-{seed}"
        if RunFolder(path).experiment.exists():
            folder, _ = reopen(path, experiment)
        else:
            folder = create(path, experiment)
        if stop_reason(experiment, _rounds(folder)):
            continue
        federation = open_federation(experiment)
        with contextlib.closing(federation.engine), locked(folder):
            watch(f"{arm}, seed {seed}", simulate(federation, folder), experiment.train.rounds)
    return {key: _rounds(RunFolder(out / folder_name(key[0]) / f"seed-{key[1]}")) for key in experiments}


def folder_name(arm: str) -> str:
    """Returns a file name for an arm: readable, and unique by a few digits of its hash."""
    return re.sub(r"[^\w.=-]+", "_", arm)[:60] + "-" + hashlib.sha256(arm.encode()).hexdigest()[:6]


def results(runs: dict[tuple[str, int], list[Round]], target_accuracy: float | None = None) -> list[ArmResult]:
    """Returns one line an arm, in the order given.

    Args:
        runs: (arm, seed) → rounds.
        target_accuracy: For ``bytes_to_target``; None takes, seed by seed, the first arm's own final accuracy.
    """
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    sizes = (r.ratio * r.upload_bytes / r.uploads for rounds in runs.values() for r in rounds if r.ratio)
    fp32_bytes = round(next(sizes, 0.0))
    final = {key: statistics.fmean(r.accuracy for r in rounds[-FINAL_ROUNDS:]) for key, rounds in runs.items()}
    out = []
    for arm in arms:
        mine = [runs[arm, seed] for seed in seeds]
        targets = [final[arms[0], seed] if target_accuracy is None else target_accuracy for seed in seeds]
        reached = [_reach(rounds, target) for rounds, target in zip(mine, targets, strict=True)]
        played = [r for rounds in mine for r in rounds]
        uploads, up = sum(r.uploads for r in played), sum(r.upload_bytes for r in played)
        down = sum(r.download_bytes for r in played)
        differences = [100 * (final[arm, seed] - final[arms[0], seed]) for seed in seeds]
        out.append(
            ArmResult(
                arm=arm,
                accuracy=statistics.fmean(final[arm, seed] for seed in seeds),
                accuracy_sd=_sd([final[arm, seed] for seed in seeds]),
                difference=statistics.fmean(differences),
                difference_sd=_sd(differences),
                upload_bytes=up / max(1, uploads),
                upload_ratio=fp32_bytes * uploads / max(1, up),
                download_ratio=fp32_bytes * uploads / max(1, down),
                total_bytes=(up + down) / len(seeds),
                rounds_to_target=tuple(r for r, _ in reached),
                bytes_to_target=tuple(b for _, b in reached),
            )
        )
    return out


def write_results(path: Path, base: Experiment, seeds: Sequence[int], lines: Sequence[ArmResult]) -> dict[str, Any]:
    """Writes ``sweep.json`` and returns its content."""
    content = {
        "experiment": to_toml(base),
        "seeds": list(seeds),
        "final_rounds": FINAL_ROUNDS,
        "arms": [asdict(line) for line in lines],
    }
    write_json(path, content)
    return content


def plot(lines: Sequence[ArmResult], path: Path) -> None:
    """Draws accuracy against upload bytes, the Pareto front joined; PNG or SVG by the file's suffix."""
    from fl_mobile.measure import pyplot

    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    middle = math.sqrt(max(line.upload_bytes for line in lines) * min(line.upload_bytes for line in lines))
    for line in lines:
        at = (line.upload_bytes / 1e3, 100 * line.accuracy)
        axes.errorbar(*at, 100 * line.accuracy_sd, fmt="o", capsize=3)
        text = line.arm.replace(";", "\n") + f"\n{line.upload_ratio:.0f}×"
        left = line.upload_bytes > middle  # labels point inward, so that none leaves the picture
        axes.annotate(
            text,
            at,
            textcoords="offset points",
            xytext=(-8 if left else 8, 4),
            ha="right" if left else "left",
            fontsize=7,
        )
    front = pareto_front(lines)
    axes.plot([f.upload_bytes / 1e3 for f in front], [100 * f.accuracy for f in front], "--", color="grey", zorder=0)
    axes.set(
        xscale="log", xlabel="kB per upload (whole packet)", ylabel=f"accuracy %, mean of last {FINAL_ROUNDS} rounds"
    )
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def pareto_front(lines: Sequence[ArmResult]) -> list[ArmResult]:
    """Returns the arms that no other arm beats in both bytes and accuracy, by rising bytes."""
    front: list[ArmResult] = []
    for line in sorted(lines, key=lambda r: (r.upload_bytes, -r.accuracy)):
        if not front or line.accuracy > front[-1].accuracy:
            front.append(line)
    return front


def _rounds(folder: RunFolder) -> list[Round]:
    return [Round(**line) for line in read_rounds(folder)]


def _reach(rounds: Sequence[Round], target: float) -> tuple[int | None, int | None]:
    total = 0
    for done in rounds:
        total += done.upload_bytes + done.download_bytes
        if done.accuracy >= target:
            return done.round_num, total
    return None, None


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.copysign(0.0, 1)
