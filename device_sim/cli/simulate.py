"""``fl-mobile simulate``: an experiment from first broadcast to verified TFLite."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.run.interrupt import stop_if_interrupted
from device_sim.run.progress import waiting

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment
    from device_sim.run.folder import RunFolder


def simulate(
    file: Annotated[
        Path | None, typer.Argument(metavar="EXPERIMENT.toml", help="See `fl-mobile new`; without it, the defaults.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder; default runs/NAME, NAME from the file, or runs/demo."),
    ] = None,
    changes: SetOption = None,
    rounds: Annotated[int | None, typer.Option(help="Short for --set train.rounds=…")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=…")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Short for --set engine.workers=…; never changes a result.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Short for --set engine.name=…; another one changes the last bits."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Short for --set engine.ray-address=…: auto or HOST:PORT."),
    ] = None,
    target_ratio: Annotated[
        float | None, typer.Option(help="Short for --set upload.target-ratio=…: adapt the codec's step to this ratio.")
    ] = None,
    upload_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The same as bytes of one upload: 20kB, 1.5MB or a number.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out to the same bytes; with --rounds, further.")
    ] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Stop after model.keras and summary.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Train federatedly on simulated phones, then export and verify the global model.

    Examples:
      fl-mobile simulate --rounds 2
      fl-mobile simulate --out runs/digits --set data.dataset=digits --set model.name=mlp --rounds 5
      fl-mobile simulate --out runs/digits --resume
      fl-mobile simulate --out runs/digits --resume --rounds 8
      fl-mobile simulate --out runs/small --upload-budget 4kB --rounds 2 --no-export
      fl-mobile simulate --out runs/cluster --engine ray --ray-address auto --rounds 5
    """
    from device_sim.experiment.as_compiled import left_open, like
    from device_sim.run import folder as run_folder
    from device_sim.run.finish import refuse_failed
    from device_sim.run.going_on import check_goes_on
    from device_sim.run.log import read_rounds
    from device_sim.run.summary import read_summary
    from fl_mobile.errors import RunError

    path = out or default_folder(file)
    short = {
        "train.rounds": rounds,
        "seed": seed,
        "engine.workers": workers,
        "engine.name": engine,
        "engine.ray-address": ray_address,
        "upload.target-ratio": target_ratio,
        "upload.budget-bytes": None if upload_budget is None else byte_count(upload_budget),
    }
    changed = [*(changes or ()), *(f"{key}={value}" for key, value in short.items() if value is not None)]
    experiment = choose_experiment(file, changed, path, resume=resume)
    recipes = () if no_export else experiment.output.recipes
    open_keys = left_open(file.read_text(encoding="utf-8") if file else "", changed)
    if resume:
        folder, stored = run_folder.reopen(path)
        experiment = like(experiment, stored, open_keys) if file else experiment
        goes_on = check_goes_on(path, stored, experiment, read_rounds(folder))
        summary = read_summary(folder)
        if goes_on or summary is None or not _is_whole(summary, experiment, recipes):
            summary = run(experiment, path, recipes, open_keys=frozenset(), resume=True, quiet=quiet)
        else:
            say(f"{path} is finished already ({summary['stop_reason']}); nothing was run.")
    else:
        run_folder.refuse_existing(path)
        summary = run(experiment, path, recipes, open_keys=open_keys, resume=False, quiet=quiet)
    show(summary, path, output)
    if summary["devices"]["accepted"] == 0:
        raise RunError(f"{path}: {summary['warnings'][0]}")
    refuse_failed(summary)


def _is_whole(summary: dict[str, Any], experiment: Experiment, recipes: tuple[str, ...]) -> bool:
    kept = summary["kept"]["keep"], summary["kept"]["by"]
    exported = bool(summary["export"]) or not recipes
    return exported and kept == (experiment.output.keep, experiment.output.keep_by)


def byte_count(text: str) -> int:
    """Returns a size in bytes; k and M are decimal.

    >>> byte_count("20kB"), byte_count("1.5 MB"), byte_count("900")
    (20000, 1500000, 900)
    """
    from fl_mobile.errors import ConfigError

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kM]?)B?\s*", text)
    if not found:
        raise ConfigError(f"--upload-budget {text}: expected a size such as 20kB, 1.5MB or 20000")
    return round(float(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]])


def default_folder(file: Path | None) -> Path:
    """Returns ``runs/<name>``: the file's stem, or its folder's name if it is called experiment.toml."""
    if file is None:
        return Path("runs/demo")
    return Path("runs") / (file.resolve().parent.name if file.stem == "experiment" else file.stem)


def choose_experiment(file: Path | None, changes: list[str], path: Path, *, resume: bool) -> Experiment:
    """Returns the experiment to run: of the file, of the run folder to be resumed, or the defaults; then changed."""
    from device_sim.experiment.toml import parse_experiment, read_experiment
    from device_sim.run import folder as run_folder

    if file is not None:
        return read_experiment(file, changes)
    if resume:
        run_folder.reopen(path)
        return read_experiment(run_folder.RunFolder(path).experiment, changes)
    return parse_experiment("", changes)


def run(
    experiment: Experiment,
    path: Path,
    recipes: tuple[str, ...],
    *,
    open_keys: frozenset[str],
    resume: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Plays all rounds that are missing and writes the results; returns the summary.

    Args:
        open_keys: Keys that nobody wrote, which the model's ``compile()`` may say.
    """
    import numpy as np

    from device_sim.api import Run
    from device_sim.federation.dealing import with_sums_released
    from device_sim.federation.federation import open_federation
    from device_sim.federation.ill_matched import MOST_COUNTED, ill_matched, uneven
    from device_sim.federation.unheld import unheld_classes
    from device_sim.run import folder as run_folder
    from device_sim.run.finish import check_before_training
    from device_sim.run.going_on import rewrite
    from export.bundles.signing import read_signing_key
    from fl_mobile.codecs.choice import AUTO
    from fl_mobile.kernels.build import built_beside

    def tell(line: str) -> None:
        stop_if_interrupted()
        if not quiet:
            say(line)

    sign_with = read_signing_key(Path(experiment.output.sign)) if experiment.output.sign else None
    compiling = built_beside(tell) if _codes_entropy(experiment) else contextlib.nullcontext(lambda: None)
    with compiling as built:
        with waiting("Loading TensorFlow, data and model …", quiet=quiet), while_loading():
            experiment = experiment if resume else with_sums_released(experiment)
            federation = open_federation(experiment, open_keys=open_keys)
        experiment = federation.experiment
        data, devices = federation.dataset, federation.data.population
        tell(f"{devices} devices hold {len(data.train)} examples; {len(data.test)} held out ({data.source})")
        tell(f"partition {federation.dealt}")
        tell(f"task {federation.task}")
        if line := unheld_classes(data):
            tell(line)
        tell(f"engine {federation.engine.about}; {federation.engine.workers} workers")
        if federation.compiled:
            tell(federation.compiled)
        if experiment.upload.codec == AUTO:
            tell(f"upload codec {federation.upload.name}, auto chose {federation.chosen_because}")
        if line := ill_matched(experiment.server.aggregation, federation.upload, clipped=experiment.privacy.central):
            tell(line)
        if experiment.weighs_examples:
            counts = federation.data.counts(np.arange(min(devices, MOST_COUNTED)))
            if line := uneven(federation.upload, counts):
                tell(line)
        with contextlib.closing(federation.engine):
            if recipes:
                check_before_training(federation, recipes, tell)
            folder = run_folder.RunFolder(path) if resume else run_folder.create(path, experiment)
            if resume:
                rewrite(folder, experiment)
            with told_how_to_go_on(folder):
                built()
                played = Run(federation, folder, fresh=not resume).finish(
                    recipes=recipes, progress=not quiet, command=command_line(), say=tell, sign_with=sign_with
                )
            return played.summary


def _codes_entropy(experiment: Experiment) -> bool:
    """Whether a run calls the loops that take a minute to compile where nobody has; all others take a second."""
    from fl_mobile.codecs import part_names
    from fl_mobile.codecs.choice import AUTO

    named = {*part_names(experiment.upload.codec), *part_names(experiment.download.codec)}
    return bool(named & {"ecsq", AUTO}) or experiment.download.mode == "delta"


@contextlib.contextmanager
def told_how_to_go_on(folder: RunFolder) -> Iterator[None]:
    """Tells how to go on after Ctrl-C."""
    from device_sim.run.log import read_rounds

    try:
        yield
    except KeyboardInterrupt:
        count = len(read_rounds(folder))
        again = shlex.join(["fl-mobile", "simulate", "--out", str(folder.path), "--resume"])
        raise KeyboardInterrupt(f"stopped; {count} finished rounds are saved. Continue with: {again}") from None


def command_line() -> str:
    """Returns the command as it was typed, quoted for a shell."""
    return shlex.join(["fl-mobile", *sys.argv[1:]])


def show(summary: dict[str, Any], path: Path, output: Format) -> None:
    """Prints the closing table, or the summary as JSON."""
    from device_sim.cli.tables import search_table, summary_table
    from export.pages.site import page_of

    if output is Format.JSON:
        print_json(summary)
        return
    searched = [search_table(summary["export"]["search"])] if (summary["export"] or {}).get("search") else []
    print_tables([*searched, summary_table(summary)])
    print(f"Run folder: {path}")
    if summary["export"]:
        print(f"Bundle:     {path / 'bundle'}")
    print(f"Prove it:   {shlex.join(['fl-mobile', 'verify', str(path)])}")
    if summary["export"] and page_of(path / "bundle"):
        print(f"Try it:     {shlex.join(['fl-mobile', 'demo', str(path), '--open'])}")
