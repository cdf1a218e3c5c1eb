"""``fl-mobile audit``: what a run leaks about its clients, measured."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from device_sim.cli.output import Format, FormatOption, make_table, print_json, print_tables, say
from device_sim.cli.quiet import while_loading
from device_sim.run.progress import waiting


def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run with at least one finished round.")],
    noise: Annotated[float, typer.Option(help="Noise multiplier of what the run is compared with.")] = 1.0,
    delta: Annotated[float, typer.Option(help="Of every ε.")] = 1e-5,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Default: audit.html in the folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Attack a run as a curious server would: canaries, membership, and pictures out of one client's update.

    A lower bound on the ε of its first round by canaries (Andrew et al. 2024), the advantage of a threshold on the
    loss (Yeom et al. 2018), and a batch recovered from a single update. Each beside the same with clipping and noise.

    Examples:
      fl-mobile audit runs/demo
      fl-mobile audit runs/demo --noise 2 --delta 1e-6 --format json
    """
    from device_sim.audit.run import Question
    from fl_mobile.errors import ConfigError

    question, file = Question(noise, delta), out or run / "audit.html"
    if file.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {file}: an audit is an HTML file; give a name that ends in .html")
    from device_sim.run.folder import reopen
    from fl_mobile.errors import RunError

    folder, experiment = reopen(run)
    if not folder.checkpoint.exists():
        raise RunError(f"{run} has no finished round yet; there is no model to audit")
    with waiting("Loading TensorFlow, data and model …", quiet=quiet), while_loading():
        from device_sim.federation.federation import open_federation

        federation = open_federation(experiment)
    from device_sim.audit.page import CANARY_COLUMNS, audit_page, canary_rows
    from device_sim.audit.run import audit as audit_run
    from fl_mobile.server import checkpoint
    from fl_mobile.storage.files import write_atomic, write_json

    with contextlib.closing(federation.engine):
        state, _ = checkpoint.load(folder.checkpoint, federation.spec)
        found = audit_run(federation, state.weights, question, (lambda line: None) if quiet else say)
    write_atomic(file, audit_page(found, run.name).encode())
    write_json(file.with_suffix(".json"), found.as_json())
    if output is Format.JSON:
        print_json({"report": str(file), **found.as_json()})
        return
    print_tables([make_table("canaries", CANARY_COLUMNS, canary_rows(found), numbers=CANARY_COLUMNS[1:])])
    members = found.members
    told = f"{100 * members.advantage:.1f} points ({100 * members.low:.1f} to {100 * members.high:.1f})"
    print(f"Membership: advantage {told} of a threshold on the loss, area under ROC {members.area:.3f}")
    for (truth, sheets), blank in zip(found.batches, found.blank, strict=True):
        for sheet in sheets:
            quality = f"{sheet.recovery.psnr.mean():.1f} dB, the mean picture {blank.mean():.1f} dB"
            print(f"Batch of {len(truth)}, {sheet.title}: {quality} ({sheet.recovery.method})")
    print(f"Pictures: {file}")
