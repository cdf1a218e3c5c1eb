"""What is in the APK, run on this machine: classes that come back out of classes.dex, libraries out of the signed APK.

1. Core's tests on core's classes as ProGuard and dx left them.
2. `TfLiteTest`: twenty steps of training on the APK's own x86_64 libraries, losses and weights against Python's.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

from apk import shim
from apk.build import apk
from apk.paths import STUB, TARGET, classpath, jar, run, tools

RECOVERED = TARGET / "recovered.jar"
ABI = "x86_64"
ENJARIFY = """
from enjarify import dalvikformats, main

plain = dalvikformats._FUNC["31i"]

def extended(*shorts):
    register, value = plain(*shorts)
    return [register, dalvikformats.sign(value, 32)]

dalvikformats._FUNC["31I"] = extended
dalvikformats.INSTRUCTION_FORMAT[0x17] = "31I"
main.main()
"""
"""Debian's enjarify 1.0.3 reads ``const-wide/32`` without its sign: -121665L came back as 4294845631L."""


def recover() -> None:
    """Writes the classes of classes.dex, without JavaCPP's: the way back loses annotations, which that reads."""
    whole = TARGET / "whole.jar"
    with zipfile.ZipFile(apk(f"fl-mobile-{ABI}")) as content:
        content.extract("classes.dex", TARGET / "from-apk")
    told = run("/usr/bin/python3", "-O", "-c", ENJARIFY, "--force", "-o", whole, TARGET / "from-apk" / "classes.dex")
    if not re.search(r" 0 classes had errors", told):
        raise SystemExit(told)
    with zipfile.ZipFile(whole) as found, zipfile.ZipFile(RECOVERED, "w") as kept:
        for name in found.namelist():
            if name.startswith("flmobile/"):
                kept.writestr(name, found.read(name))
    whole.unlink()


def tested(module: str, *options: str) -> None:
    """Runs a module's tests on the recovered classes; prints how many."""
    junit = [path for path in classpath() if re.match(r"junit-|opentest4j-|apiguardian-", path.name)]
    natives = [jar("javacpp-", "1.5.13.jar"), jar("tensorflow-lite-", "-1.5.13.jar")]
    where = [RECOVERED, STUB / module / "target" / "test-classes", *natives, *junit]
    path = os.pathsep.join([*map(str, where), tools()])
    launcher = ["org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner", "--details=summary"]
    scan = f"--scan-classpath={STUB / module / 'target' / 'test-classes'}"
    told = run("java", "-Xmx512m", f"-Dfl.repository={STUB.parent}", *options, "-cp", path, *launcher, scan)
    passed, failed = (int(re.search(rf"(\d+) tests {word}", told).group(1)) for word in ("successful", "failed"))
    if failed or not passed:
        raise SystemExit(told)
    print(f"{module} on classes of classes.dex: {passed} tests")


def libraries() -> Path:
    """Returns a folder with the APK's x86_64 libraries, as they are, and what lets glibc load them."""
    out = TARGET / "shim"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with zipfile.ZipFile(apk(f"fl-mobile-{ABI}")) as content:
        found = [name for name in content.namelist() if name.startswith(f"lib/{ABI}/")]
        for name in found:
            (out / Path(name).name).write_bytes(content.read(name))
    shim.build([out / Path(name).name for name in found], out)
    return out


def main() -> None:
    """Runs both."""
    recover()
    tested("core")
    natives = libraries()
    os.environ["LD_LIBRARY_PATH"] = str(natives)
    tested("engine", f"-Djava.library.path={natives}", "-Dorg.bytedeco.javacpp.platform=android-x86_64")


if __name__ == "__main__":
    main()
