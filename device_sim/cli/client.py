"""``fl-mobile client``: the reference client, or a fleet of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, print_json, say

if TYPE_CHECKING:
    from fl_mobile.client.asked import Visit


def client(
    server: Annotated[str, typer.Option(metavar="URL", help="Of the coordinator, e.g. http://127.0.0.1:8470.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="A .npz file a client, with x and y; or one such file.")],
    fleet: Annotated[int, typer.Option(metavar="N", help="Play the first N clients of the folder, by name.")] = 1,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What clients keep between rounds; default DIR/.fl-mobile.")
    ] = None,
    visits: Annotated[int, typer.Option(help="Rounds each client takes part in; 0 is until the run ends.")] = 0,
    threads: Annotated[int, typer.Option(help="Clients at work at one time.")] = 2,
    runtime: Annotated[str, typer.Option(metavar="NAME", help="litert, litert-compiled or tflite-runtime.")] = "litert",
    ca: Annotated[Path | None, typer.Option(metavar="PEM", help="Trust this certificate authority alone.")] = None,
    pause_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take no part while this file exists: not idle, not charging.")
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public keys of all devices, one a line: who masked sums are shared with."),
    ] = None,
    show_keys: Annotated[
        bool, typer.Option("--show-keys", help="Print the clients' public keys, for a registry, and end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take part in a run that `fl-mobile serve` offers: train on local examples, send compressed updates.

    Examples:
      fl-mobile client --server http://127.0.0.1:8470 --data data/client-000000.npz
      fl-mobile client --server http://127.0.0.1:8470 --data data --fleet 20
      fl-mobile client --server http://127.0.0.1:8470 --data data --fleet 20 --show-keys
    """
    import ssl

    from device_sim.deploy.examples import read_examples
    from device_sim.deploy.fleet import Fleet, on_litert
    from export.training.session import SESSIONS
    from fl_mobile.client.kept import device_key
    from fl_mobile.errors import ConfigError, check_known
    from fl_mobile.protocol.signing import to_base64
    from fl_mobile.secure_sum.registry import read_registry

    check_known("--runtime", runtime, SESSIONS)
    if fleet < 1 or threads < 1 or visits < 0:
        raise ConfigError(f"--fleet and --threads must be ≥ 1 and --visits ≥ 0, got {fleet}, {threads} and {visits}")

    def told(name: str, visit: Visit) -> None:
        if not quiet:
            say(f"{name}: round {visit.round_num}: {visit.reason or 'accepted'}")

    examples = read_examples(data, fleet)
    folder = state or (data if data.is_dir() else data.parent) / ".fl-mobile"
    if show_keys:
        print("\n".join(to_base64(device_key(folder / one.name).public) for one in examples))
        return
    played = Fleet(
        url=server,
        folder=folder,
        train=on_litert(runtime),
        threads=min(threads, fleet),
        context=None if ca is None else ssl.create_default_context(cafile=str(ca)),
        told=told,
        registry=frozenset() if registry is None else read_registry(registry),
        fits=lambda: "paused" if pause_file is not None and pause_file.exists() else "",
    )
    outcomes = played.run(examples, visits=visits)
    if output is Format.JSON:
        print_json(dict(sorted(outcomes.items())))
    else:
        print("\n".join(f"{reason}: {count}" for reason, count in sorted(outcomes.items())) or "never asked")
