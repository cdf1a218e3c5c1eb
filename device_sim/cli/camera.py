"""``fl-mobile camera``: a bundle on the webcam of a browser, on this computer only."""

from __future__ import annotations

from device_sim.cli.in_browser import BundleArgument, OpenOption, PortOption, show
from device_sim.cli.output import Format, FormatOption
from device_sim.cli.trust import PublicKeyOption, RequireSignatureOption, read_trust


def camera(
    bundle: BundleArgument,
    port: PortOption = 8000,
    open_browser: OpenOption = False,
    public_key: PublicKeyOption = None,
    require_signature: RequireSignatureOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Try a bundle in the browser: webcam or pictures in, top-3 labels out, every recipe; until Ctrl-C.

    The bundle is proven first, as `verify` does. The page is served to this computer only and loads nothing from
    elsewhere. LiteRT.js, which runs the .tflite files there, comes from npm once and is checked against a pinned hash.
    `demo` does the same for bundles of other tasks.

    Examples:
      fl-mobile camera runs/demo/bundle --open
      fl-mobile camera runs/demo/bundle --port 0 --format json
      fl-mobile camera bundles/release --public-key keys/release.pub.pem
    """
    trust = read_trust(public_key, require_signature)
    show(bundle, trust, page="camera", port=port, open_browser=open_browser, output=output)
