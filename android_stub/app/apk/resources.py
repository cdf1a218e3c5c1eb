"""Resources and manifest, compiled and linked twice: for everybody, and for debugging with loopback in clear text."""

from __future__ import annotations

from pathlib import Path

from apk.paths import APP, TARGET, run, sdk

MAIN, DEBUG = APP / "src" / "main", APP / "src" / "debug"


def linked(name: str) -> Path:
    """Returns where the linked resources of ``release`` or ``debug`` are."""
    return TARGET / f"resources-{name}.apk"


def main() -> None:
    """Writes the two, and R.java."""
    generated = TARGET / "generated-sources" / "r"
    generated.mkdir(parents=True, exist_ok=True)
    resources, _ = sdk()
    for name, folder in (("main", MAIN), ("debug", DEBUG)):
        run("aapt2", "compile", "--dir", folder / "res", "-o", TARGET / f"{name}-resources.zip")
    link = [
        "aapt2",
        "link",
        "-I",
        resources,
        "--manifest",
        MAIN / "AndroidManifest.xml",
        "-A",
        MAIN / "assets",
        "-0",
        ".tflite",
    ]
    whole = TARGET / "main-resources.zip"
    run(*link, "-o", linked("release"), "--java", generated, whole)
    run(*link, "-o", linked("debug"), "--debug-mode", "--auto-add-overlay", "-R", TARGET / "debug-resources.zip", whole)


if __name__ == "__main__":
    main()
