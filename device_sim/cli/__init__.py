"""The ``fl-mobile`` command: one file a verb, each parses, calls one function and prints.

```
argv ─▶ typer ─▶ verb ─▶ device_sim / export / fl_mobile ─▶ output.py
                   └── any error ─▶ edge.py ─▶ one line on stderr, one exit code
```
Nothing here imports TensorFlow before a verb needs it: ``--help`` and the tables answer at once.
"""

from __future__ import annotations

import os

# Parallelism comes from workers; BLAS threads of their own would only fight them. NumPy reads this when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from typing import Annotated

import typer

from device_sim.cli import quiet
from device_sim.cli.audit import audit
from device_sim.cli.benchmark import benchmark
from device_sim.cli.camera import camera
from device_sim.cli.check import check
from device_sim.cli.client import client
from device_sim.cli.codecs import codecs
from device_sim.cli.datasets import datasets
from device_sim.cli.demo import demo
from device_sim.cli.doctor import doctor
from device_sim.cli.edge import DEBUG_VARIABLE, exit_codes, reported
from device_sim.cli.export import export
from device_sim.cli.keys import keys
from device_sim.cli.measure import measure
from device_sim.cli.models import models
from device_sim.cli.new import new
from device_sim.cli.output import encodable_stdout
from device_sim.cli.report import report
from device_sim.cli.serve import serve
from device_sim.cli.simulate import simulate
from device_sim.cli.sweep import sweep
from device_sim.cli.verify import verify

VERBS = (
    simulate,
    serve,
    client,
    report,
    sweep,
    measure,
    audit,
    export,
    verify,
    benchmark,
    keys,
    demo,
    camera,
    datasets,
    codecs,
    models,
    check,
    new,
    doctor,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fl-mobile {version('fl-mobile')}")
        raise typer.Exit


def start(
    debug: Annotated[bool, typer.Option("--debug", help=f"Show tracebacks; also {DEBUG_VARIABLE}=1.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Keras models learn on phones; only compressed updates leave them; what comes out is TFLite that runs there."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    quiet.set_log_levels()


def make_app() -> typer.Typer:
    """Returns the command with all its verbs."""
    codes = "\n".join(f"{code:>3}  {meaning}" for code, meaning in exit_codes())
    app = typer.Typer(
        name="fl-mobile",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=f"Exit codes\n\n{codes}")(start)
    for verb in VERBS:
        app.command(verb.__name__)(reported(verb))
    return app


def main() -> None:
    """Entry point of the ``fl-mobile`` command."""
    encodable_stdout()
    try:
        make_app()()
    except SystemExit:
        quiet.until_the_end()
        raise
