"""``fl-mobile demo``: a bundle in a browser, by the page that suits its task, on this computer only."""

from __future__ import annotations

from device_sim.cli.in_browser import BundleArgument, OpenOption, PortOption, show
from device_sim.cli.output import Format, FormatOption
from device_sim.cli.trust import PublicKeyOption, RequireSignatureOption, read_trust


def demo(
    bundle: BundleArgument,
    port: PortOption = 8000,
    open_browser: OpenOption = False,
    public_key: PublicKeyOption = None,
    require_signature: RequireSignatureOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Try a bundle in the browser, as its task wants it: camera, keyboard, form or strip chart; until Ctrl-C.

    Pictures are classified from webcam or files (as `camera` does), text is gone on with by three suggestions, a
    recording of the test part is replayed with the label over time, a table has a field for each feature. The bundle is
    proven first, as `verify` does, and the page shows that it answers the golden examples as Python does. It is served
    to this computer only.

    Examples:
      fl-mobile demo runs/demo --open
      fl-mobile demo runs/demo/bundle --port 0 --format json
      fl-mobile demo bundles/release --public-key keys/release.pub.pem
    """
    trust = read_trust(public_key, require_signature)
    show(bundle, trust, page="", port=port, open_browser=open_browser, output=output)
