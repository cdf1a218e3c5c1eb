"""``fl-mobile serve``: an experiment on real clients, over HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.cli.output import Format, FormatOption, SetOption, print_json, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.simulate import choose_experiment, command_line, default_folder, show
from device_sim.run.progress import follow, waiting

if TYPE_CHECKING:
    from device_sim.deploy.serve import Service
    from device_sim.experiment.experiment import Experiment
    from device_sim.run.folder import RunFolder


def serve(
    file: Annotated[
        Path | None, typer.Argument(metavar="EXPERIMENT.toml", help="As of `simulate`; without it, the defaults.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder; default runs/NAME. A run that is there goes on."),
    ] = None,
    changes: SetOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8470,
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate chain; needs --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    database: Annotated[
        str, typer.Option(metavar="URL", help="postgresql://USER@HOST/NAME; empty is SQLite in the run folder.")
    ] = "",
    blobs: Annotated[
        str, typer.Option(metavar="URL", help="s3://BUCKET/PATH for packets and models; empty is the run folder.")
    ] = "",
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait for another coordinator of this run to end, then take over.")
    ] = False,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker", help="Answer clients beside the `serve` that plays this run: same --database, same --out."
        ),
    ] = False,
    attest: Annotated[
        str, typer.Option(metavar="package.module:function", help="Says why a device may not enrol; see docs.")
    ] = "",
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append what happens, a JSON object a line; - is stderr.")
    ] = None,
    minimum: Annotated[int, typer.Option(help="Updates without which a deadline ends no round.")] = 1,
    seat_seconds: Annotated[float, typer.Option(help="How long a client that was asked is waited for.")] = 3600.0,
    step_seconds: Annotated[
        float, typer.Option(help="Of masked rounds: answers to a step, the packet apart, are waited for so long.")
    ] = 60.0,
    retry_seconds: Annotated[float, typer.Option(help="Clients that are not needed come again after this.")] = 60.0,
    cohort: Annotated[
        str, typer.Option(metavar="first-come|drawn", help="drawn: ask whom `simulate` would draw.")
    ] = "first-come",
    sums: Annotated[
        int, typer.Option(metavar="N", help="Devices whose sums are waited for before round 1, if asked; 0: a cohort.")
    ] = 0,
    linger_seconds: Annotated[
        float | None,
        typer.Option(help="After the last round, for clients to hear of it; default 3 × --retry-seconds."),
    ] = None,
    deal: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what simulated devices hold, for `client`, and end.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Tell what is wrong with this setup, and end.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Stop after model.keras and summary.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Serve an experiment to real clients; ends like `simulate`, and goes on with the same command after any crash.

    Examples:
      fl-mobile serve --check --set data.dataset=digits --set model.name=mlp
      fl-mobile serve --deal data --set data.dataset=digits --set model.name=mlp
      fl-mobile serve --out served --retry-seconds 2 --set data.dataset=digits --set train.rounds=3 --set model.name=mlp
    """
    from fl_mobile.errors import ConfigError

    try:
        from device_sim.deploy.serve import Service
        from fl_mobile.coordinator.http import Tls
        from fl_mobile.coordinator.logs import log_to
        from fl_mobile.coordinator.records import Pace
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'fl-mobile[serve]'") from None
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key: give both, or neither behind a proxy that ends TLS")
    if sums < 0:
        raise ConfigError(f"--sums must be at least 0, got {sums}")
    if cohort not in ("first-come", "drawn"):
        raise ConfigError(f"--cohort must be first-come or drawn, got '{cohort}'")
    if log is not None:
        log_to(log)
    tls = None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key)
    path = out or default_folder(file)
    linger = 3 * retry_seconds if linger_seconds is None else linger_seconds
    if worker:
        if deal is not None or check or standby:
            raise ConfigError("--worker plays no round: --deal, --check and --standby are for the one that does")
        _answer(path, Service(host=host, port=port, tls=tls, database=database, blobs=blobs, attest=attest), linger)
        return
    goes_on = (path / "experiment.toml").exists()
    experiment = choose_experiment(file, list(changes or ()), path, resume=goes_on)
    experiment = _as_compiled(experiment, file, changes or (), path, goes_on=goes_on)
    service = Service(
        host=host,
        port=port,
        tls=tls,
        database=database,
        blobs=blobs,
        standby=standby,
        attest=attest,
        least=minimum,
        seat_seconds=seat_seconds,
        step_seconds=step_seconds,
        drawn=cohort == "drawn",
        sums=sums,
        pace=Pace(least_seconds=retry_seconds),
    )
    recipes = () if no_export else experiment.output.recipes
    if deal is not None:
        _deal(experiment, deal, output)
    elif check:
        _check(experiment, service, recipes, output)
    else:
        summary = _run(experiment, path, service, recipes, resume=goes_on, linger=linger, quiet=quiet)
        show(summary, path, output)


def _answer(path: Path, service: Service, linger: float) -> None:
    """Answers clients beside the round master, until it has finished; loads neither data nor TensorFlow."""
    from device_sim.deploy.serve import beside

    say(f"waiting for the round master of {path} …")
    with beside(path, service) as (url, worker):
        say(f"serving {path} on {url}, beside its round master")
        worker.serve(linger=linger, stopped=lambda: False)


def _as_compiled(
    experiment: Experiment, file: Path | None, changes: Sequence[str], path: Path, *, goes_on: bool
) -> Experiment:
    """Returns the experiment with what it leaves open as the model was compiled; a run that goes on has it already."""
    from device_sim.experiment.as_compiled import left_open, like
    from device_sim.federation.federation import settled
    from device_sim.run import folder as run_folder

    open_keys = left_open(file.read_text(encoding="utf-8") if file else "", changes)
    if goes_on:
        return like(experiment, run_folder.reopen(path)[1], open_keys) if file else experiment
    experiment, told = settled(experiment, open_keys)
    if told:
        say(told)
    return experiment


def _deal(experiment: Experiment, folder: Path, output: Format) -> None:
    from device_sim.datasets.scaling import NONE
    from device_sim.deploy.examples import deal
    from device_sim.federation.dealing import data_of, open_dataset

    as_they_are = replace(experiment.data, standardize=NONE, scaling=())
    dataset = open_dataset(replace(experiment, data=as_they_are))
    count = deal(dataset, data_of(experiment, dataset), folder)
    _tell({"clients": count, "folder": str(folder)}, output)


def _check(experiment: Experiment, service: Service, recipes: tuple[str, ...], output: Format) -> None:
    """Opens everything that serving opens, in a folder that is thrown away."""
    import tempfile

    from device_sim.deploy.opening import deployable, open_deployed
    from device_sim.deploy.serve import served
    from device_sim.run import folder as run_folder
    from device_sim.run.finish import check_before_training

    with while_loading():
        federation, programs = open_deployed(deployable(experiment, drawn=service.drawn))
    with contextlib.closing(federation.engine), tempfile.TemporaryDirectory() as temporary:
        if recipes:
            check_before_training(federation, recipes, say)
        folder = run_folder.create(Path(temporary) / "run", federation.experiment)
        with served(federation, folder, programs, service) as serving:
            told = {"listens": serving.url, "program_bytes": len(programs["training"]), "ready": True}
    _tell(told, output)


def _run(
    experiment: Experiment,
    path: Path,
    service: Service,
    recipes: tuple[str, ...],
    *,
    resume: bool,
    linger: float,
    quiet: bool,
) -> dict[str, Any]:
    """Serves all rounds that are missing and writes the results; returns the summary."""
    from device_sim.deploy import statistics
    from device_sim.deploy.opening import deployable, open_deployed, with_statistics_bytes
    from device_sim.deploy.serve import served
    from device_sim.federation.dealing import loaded
    from device_sim.report.tensorboard import recorded
    from device_sim.run import folder as run_folder
    from device_sim.run.finish import check_before_training, finish
    from device_sim.run.log import read_rounds
    from export.bundles.signing import read_signing_key

    def tell(line: str) -> None:
        if not quiet:
            say(line)

    experiment = deployable(experiment, drawn=service.drawn)
    sign_with = read_signing_key(Path(experiment.output.sign)) if experiment.output.sign else None
    if resume:
        experiment = statistics.as_gathered(experiment, run_folder.reopen(path)[1])
    folder, _ = run_folder.reopen(path, experiment) if resume else (None, None)
    if folder is None:
        run_folder.refuse_existing(path)
    if statistics.asks(experiment):
        dataset = loaded(experiment)
        statistics.questions(experiment, dataset)  # what nobody can be asked is refused before there is a folder
        folder = folder or run_folder.create(path, experiment)
        with _held(folder, service.standby):
            experiment, service = statistics.gather(folder, dataset, service, say=say)
    with waiting("Loading TensorFlow, data and model, building the phone's program …", quiet=quiet), while_loading():
        federation, programs = open_deployed(experiment)
    with contextlib.closing(federation.engine):
        if recipes:
            check_before_training(federation, recipes, tell)
        folder = folder or run_folder.create(path, experiment)
        with _held(folder, service.standby), served(federation, folder, programs, service) as serving:
            say(f"serving {path} on {serving.url}")
            federation = with_statistics_bytes(federation, serving.coordinator.statistics_bytes())
            played = recorded(serving.rounds, folder.path)
            rounds = list(follow(played, experiment.train.rounds, len(read_rounds(folder)), quiet=quiet))
            with _told_for(linger):
                return finish(
                    *(federation, folder, rounds),
                    command=command_line(),
                    recipes=recipes,
                    say=tell,
                    license=experiment.output.license,
                    sign_with=sign_with,
                )


@contextlib.contextmanager
def _held(folder: RunFolder, standby: bool) -> Iterator[None]:
    """Holds the run for this process; a standby waits until nobody else does."""
    from device_sim.run.folder import locked
    from fl_mobile.errors import RunError

    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except RunError:
                if not standby:
                    raise
            threading.Event().wait(1)
        yield


@contextlib.contextmanager
def _told_for(seconds: float) -> Iterator[None]:
    """Keeps the block open for so long at least: clients that come now are told that the run is finished."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()
    yield
    over.wait()


def _tell(value: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print_json(value)
    else:
        print("\n".join(f"{name}: {what}" for name, what in value.items()))
