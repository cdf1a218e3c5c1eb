"""Where Maven put what an APK is made of, and the SDK: android-all's classes and resources."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

APP = Path(__file__).parents[1]
TARGET = APP / "target"
STUB = APP.parent
PLATFORMS = {"arm64-v8a": "android-arm64", "x86_64": "android-x86_64"}
"""ABI as Android names it → as JavaCPP does."""

_SEEN = ("app/", "content/", "os/", "net/", "util/", "view/", "widget/", "graphics/", "text/", "annotation/", "window/")
_SEEN = (*(f"android/{name}" for name in (*_SEEN, "hardware/", "media/", "security/", "database/")), "org/json/")
"""Packages of Android that ProGuard must see to follow our classes upward."""


def run(*command: object) -> str:
    """Returns what a tool prints; raises ``SystemExit`` with what it said where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"{command[0]} failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def classpath() -> list[Path]:
    """Returns the jars (or folders of classes) that Maven resolved for the app."""
    return [Path(part) for part in (TARGET / "classpath.txt").read_text(encoding="utf-8").strip().split(os.pathsep)]


def jar(start: str, end: str = ".jar") -> Path:
    """Returns the one jar of the class path whose name begins and ends so."""
    found = [path for path in classpath() if path.name.startswith(start) and path.name.endswith(end)]
    if len(found) != 1:
        raise SystemExit(
            f"expected one {start}*{end} on the app's class path, found {len(found)}: run Maven from android_stub"
        )
    return found[0]


def module(name: str) -> Path:
    """Returns the classes of a module of this reactor."""
    packed = STUB / name / "target" / f"{name}-0.1.jar"
    return packed if packed.exists() else STUB / name / "target" / "classes"


def tools() -> str:
    """Returns the class path of ProGuard and dx."""
    return (STUB / "tools" / "target" / "classpath.txt").read_text(encoding="utf-8").strip()


def sdk() -> tuple[Path, Path]:
    """Returns what aapt2 links with (resources of API 34), and the classes ProGuard looks at; both made once."""
    resources, classes = TARGET / "android-34.zip", TARGET / "android-34.jar"
    if not classes.exists():
        draft = classes.with_suffix(".new")
        with (
            zipfile.ZipFile(jar("android-all-")) as whole,
            zipfile.ZipFile(resources, "w") as some,
            zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as seen,
        ):
            for name in whole.namelist():
                if name in ("AndroidManifest.xml", "resources.arsc"):
                    some.writestr(name, whole.read(name))  # stored: aapt2 maps it
                elif name.startswith(_SEEN) and name.endswith(".class"):
                    seen.writestr(name, whole.read(name))
        draft.rename(classes)
    return resources, classes
