"""A bundle's page, served to this computer until Ctrl-C: what `demo` and `camera` share."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, print_json, say
from device_sim.cli.quiet import while_loading
from device_sim.run.interrupt import forget_interrupt

if TYPE_CHECKING:
    from export.bundles.folder import Trust

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, or a run with one, e.g. runs/demo.")
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port on this computer; 0 picks a free one.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")]


def bundle_in(path: Path) -> Path:
    """Returns the bundle at ``path``, or that of the run there."""
    return path / "bundle" if (path / "bundle" / "manifest.json").is_file() else path


def show(path: Path, trust: Trust, *, page: str, port: int, open_browser: bool, output: Format) -> None:
    """Proves the bundle at ``path``, serves its page and tells the address; returns after Ctrl-C.

    Args:
        page: Row of ``export.pages.PAGES``; empty takes the one that suits the bundle.
    """
    from export.pages import page_resources
    from export.runtimes.browser import serving

    bundle = bundle_in(path)
    say("proving the bundle")
    with while_loading():
        name, resources = page_resources(bundle, trust, page=page)
    with serving(resources, port) as url, _until_interrupted():
        if output is Format.JSON:
            recipes = [path[1:].removesuffix(".tflite") for path in resources if path.endswith(".tflite")]
            checked = bool(trust.key)
            told = {"url": url, "page": name, "bundle": str(bundle), "signature_checked": checked, "recipes": recipes}
            print_json(told)
        else:
            number = url.rstrip("/").rpartition(":")[2]
            print(f"{name.capitalize() + ':':<10}{url}")
            # Pages get a camera on https or localhost only, so a phone needs the tunnel rather than this address.
            print(f"On a phone over USB: adb reverse tcp:{number} tcp:{number}, then http://localhost:{number}/ there")
        sys.stdout.flush()  # whoever reads a pipe wants the address now, not when the server ends
        say("Ctrl-C ends it")
        if open_browser:
            typer.launch(url)
        threading.Event().wait()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C is the normal end of a server, so it is no error here."""
    try:
        yield
    except KeyboardInterrupt:
        forget_interrupt()
        say("ended")
