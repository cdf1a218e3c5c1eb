"""What the app shows: `src/main/assets/`, written from a bundle that `fl-mobile export` made and this proves once more.

``.venv/bin/python android_stub/app/assets.py bundles/mine`` replaces the digits that are committed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from export.bundles.folder import ARTIFACTS, read_bundle
from export.pages.camera import described
from export.pages.site import refuse
from export.verify.bundle import verify_bundle

ASSETS = Path(__file__).parent / "src" / "main" / "assets"


def main(path: Path) -> None:
    """Writes ``bundle.json`` and the ``.tflite`` files, and removes those of the bundle before."""
    bundle = read_bundle(path)
    bundle.expect(ARTIFACTS)
    refuse(bundle, "camera")
    verify_bundle(path)
    ASSETS.mkdir(parents=True, exist_ok=True)
    for old in ASSETS.iterdir():
        old.unlink()
    for variant in described(bundle)["variants"]:
        name = variant["url"].lstrip("/")
        (ASSETS / name).write_bytes(bundle.files[name])
    told = json.dumps(described(bundle), indent=1)
    (ASSETS / "bundle.json").write_text(told + "\n", encoding="utf-8")
    print("wrote", ASSETS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
