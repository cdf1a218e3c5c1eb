"""``fl-mobile sweep``: search any keys of an experiment, or compare codecs, on the same seeds and cohorts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, print_json, say
from device_sim.cli.quiet import load_tensorflow
from device_sim.cli.sweep_job import Job
from device_sim.run.interrupt import stop_if_interrupted
from device_sim.run.progress import follow, waiting

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment
    from device_sim.federation.federation import Federation
    from device_sim.run.log import Round
    from device_sim.sweep.results import TrialResult

DEFAULT_SEEDS = 3


def sweep(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="SWEEP.toml | CODEC…", help="A file that says what to search; or codecs, more keys after ';'."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Runs and results; started again, it does what is missing. Default runs/NAME, NAME from the file.",
        ),
    ] = None,
    experiment: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Codecs: the experiment; without it, the defaults.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds 0 … N-1, the same in every trial. Default: the file's, or 3."),
    ] = None,
    target_accuracy: Annotated[
        float | None, typer.Option(help="For bytes to target; default: trial 0's own final accuracy.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pareto plot, .png or .svg; a file's is DIR/pareto.svg.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, say what it costs, run nothing.")] = False,
    changes: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Search the keys of an experiment for accuracy and bytes, or compare codecs.

    Trial 0 is the base, or the first codec. Every trial has the same seeds
    and is compared with trial 0 seed by seed. One that cannot work is kept
    as failed, with its reason. Kill it any time: the same command goes on.

    \b
    A SWEEP.toml (all but \\[search] may be left out):
      base = "experiment.toml"     # beside it; tables below change it
      sampler = "tpe"              # grid, random, tpe, or pareto: NSGA-II
      trials = 40
      objectives = ["accuracy", "total-bytes"]    # also loss, upload-bytes
      \\[experiment.train]
      rounds = 20
      \\[search]
      "train.learning-rate" = { low = 0.01, high = 0.3, log = true }
      "train.epochs" = { low = 1, high = 5 }
      "upload.codec" = ["ecsq", "q8+deflate", "topk:0.01+q8+deflate"]

    It leaves trials.jsonl, sweep.json, pareto.svg, for two keys with lists
    of values heat-map.svg and a table of both, and best.toml for
    `fl-mobile simulate`: with two objectives, the cheapest trial within
    one standard error of the most accurate one.

    Examples:
      fl-mobile sweep search.toml --dry-run
      fl-mobile sweep search.toml --out runs/search --seeds 2
      fl-mobile sweep none q8+deflate --set data.dataset=digits --set model.name=mlp --set train.rounds=2 --seeds 1
      fl-mobile sweep none 'ecsq;upload.memory=cafe' --experiment experiment.toml --seeds 1 --out runs/cafe
    """
    from device_sim.cli.sweep_tables import show, show_cost
    from device_sim.sweep.files import write_results
    from device_sim.sweep.run import Sweep, forecast
    from fl_mobile.errors import ConfigError

    if target_accuracy is not None and not 0 <= target_accuracy <= 1:
        raise ConfigError(f"--target-accuracy must be from 0 to 1, e.g. 0.95, got {target_accuracy}")
    job = _job(what=what, out=out, experiment=experiment, seeds=seeds, plot=plot, changes=changes or [])
    if dry_run:
        show_cost(forecast(Sweep(job.base, job.seeds, job.out, lambda *run: None), job.search), output)
        return
    results = run(job, target_accuracy, quiet=quiet)
    content = write_results(job.out, job.what, results, job.objectives)
    files = _leave(job, results, content["best"])
    if output is Format.JSON:
        print_json(content)
    else:
        show(job, content, results, files)


def _job(
    what: list[str],
    out: Path | None,
    experiment: Path | None,
    seeds: int | None,
    plot: Path | None,
    changes: list[str],
) -> Job:
    from device_sim.experiment.as_compiled import left_open
    from device_sim.experiment.toml import parse_experiment, read_experiment, to_toml
    from device_sim.federation.federation import settled
    from device_sim.sweep import arms, files, plan, search
    from fl_mobile.errors import ConfigError

    if not what[0].endswith(".toml"):
        base = read_experiment(experiment, changes) if experiment else parse_experiment("", changes)
        text = experiment.read_text(encoding="utf-8") if experiment else ""
        base = settled(base, left_open(text, changes))[0]
        count = DEFAULT_SEEDS if seeds is None else seeds
        told = {"experiment": to_toml(base), "seeds": count}
        listed = search.listed(arms.arm_trials(base, what, count))
        return Job(
            base=base,
            seeds=count,
            search=listed,
            objectives=("accuracy", "upload-bytes"),
            what=told,
            out=out or Path("runs/sweep"),
            plot=plot,
        )
    if len(what) > 1 or experiment:
        raise ConfigError(f"{what[0]} stands alone: it names its own base; change keys with --set")
    path = Path(what[0])
    planned = files.read_sweep(path, changes, seeds)
    planned = replace(planned, base=settled(planned.base, files.left_open_by(path, changes))[0])
    folder = out or Path("runs") / path.stem
    told = plan.as_json(planned)
    searched = search.open_search(planned)
    return Job(
        base=planned.base,
        seeds=planned.seeds,
        search=searched,
        objectives=planned.objectives,
        what=told,
        out=folder,
        plot=plot or folder / "pareto.svg",
    )


def run(job: Job, target_accuracy: float | None, *, quiet: bool) -> list[TrialResult]:
    """Runs what is missing; returns all trials."""
    from device_sim.federation.federation import open_federation
    from device_sim.sweep.run import Sweep, run_sweep
    from fl_mobile.measurements.measurement import new_figure

    if job.plot:
        new_figure((1, 1))  # a missing library is told now, not after a night of training

    def watch(title: str, rounds: Iterator[Round], limit: int) -> None:
        stop_if_interrupted()
        if not quiet:
            say(title)
        for _ in follow(rounds, limit, 0, quiet=quiet):
            pass

    def open_one(experiment: Experiment) -> Federation:
        if "tensorflow" not in sys.modules:  # a finished sweep is shown without it
            with waiting("Loading TensorFlow …", quiet=quiet):
                load_tensorflow()
        return open_federation(experiment)

    with _resumable(job.out):
        return run_sweep(
            Sweep(
                base=job.base, seeds=job.seeds, out=job.out, watch=watch, target_accuracy=target_accuracy, open=open_one
            ),
            job.search,
        )


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; what is finished is in {out}, and the same command goes on") from None


def _leave(job: Job, results: list[TrialResult], best: int | None) -> list[Path]:
    """Draws the plot and writes the best trial's experiment; returns what was written."""
    from device_sim.sweep.files import write_best
    from device_sim.sweep.heat_map import draw_heat_map
    from device_sim.sweep.picture import plot

    written = [job.out / "sweep.json"]
    if job.plot:
        plot(results, job.plot, job.cost)
        written.append(job.plot)
    if job.plot and (grid := job.grid(results)):
        picture = job.plot.with_name(f"heat-map{job.plot.suffix}")
        draw_heat_map(grid, picture)
        written.append(picture)
    if best is not None:
        write_best(job.out / "best.toml", job.base, results[best])
        written.append(job.out / "best.toml")
    return written
