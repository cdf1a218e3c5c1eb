"""``fl-mobile camera``: a bundle on the webcam of a browser, on this computer only."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from device_sim.cli.output import Format, FormatOption, print_json, say
from device_sim.cli.quiet import while_loading
from device_sim.cli.trust import PublicKeyOption, RequireSignatureOption, read_trust
from device_sim.run.interrupt import forget_interrupt


def camera(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, e.g. runs/demo/bundle.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this computer; 0 picks a free one.")] = 8000,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
    public_key: PublicKeyOption = None,
    require_signature: RequireSignatureOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Try a bundle in the browser: webcam or pictures in, top-3 labels out, every recipe; until Ctrl-C.

    The bundle is proven first, as `verify` does. The page is served to this computer only and loads nothing from
    elsewhere. LiteRT.js, which runs the .tflite files there, comes from npm once and is checked against a pinned hash.

    Examples:
      fl-mobile camera runs/demo/bundle --open
      fl-mobile camera runs/demo/bundle --port 0 --format json
      fl-mobile camera bundles/release --public-key keys/release.pub.pem
    """
    from export.camera import camera_resources
    from export.runtimes.browser import serving

    trust = read_trust(public_key, require_signature)
    say("camera: proving the bundle")
    with while_loading():
        resources = camera_resources(bundle, trust)
    with serving(resources, port) as url, _until_interrupted():
        if output is Format.JSON:
            recipes = [path[1:].removesuffix(".tflite") for path in resources if path.endswith(".tflite")]
            checked = bool(trust.key)
            print_json({"url": url, "bundle": str(bundle), "signature_checked": checked, "recipes": recipes})
        else:
            number = url.rstrip("/").rpartition(":")[2]
            print(f"Camera:   {url}")
            # Pages get a camera on https or localhost only, so a phone needs the tunnel rather than this address.
            print(f"On a phone over USB: adb reverse tcp:{number} tcp:{number}, then http://localhost:{number}/ there")
        sys.stdout.flush()  # whoever reads a pipe wants the address now, not when the server ends
        say("camera: Ctrl-C ends it")
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
        say("camera: ended")
