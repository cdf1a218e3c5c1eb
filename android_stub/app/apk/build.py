"""class files → ProGuard → dx → zip, aligned → signed. Prints what it made.

ProGuard turns lambdas and default methods into what Android 8 knows; dx alone would write them as ``invoke-custom``,
which no phone can link. The zip is written here because Debian's zipalign knows pages of 4 kB alone, and phones with
16 kB come.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from apk.paths import APP, PLATFORMS, TARGET, jar, module, run, sdk, tools
from apk.resources import linked

PAGE, WORD = 16384, 4
ALIGNED = 0xD935  # the extra field of apksigner: how far an entry is aligned
APKS = {
    "fl-mobile-arm64-v8a": ("release", ("arm64-v8a",)),
    "fl-mobile-x86_64": ("release", ("x86_64",)),
    "fl-mobile-debug": ("debug", ("arm64-v8a", "x86_64")),
}
KEY = TARGET / "debug.p12"
PASSWORD = "android"
"""Of a key that signs nothing but trials: a store wants your own."""


def apk(name: str) -> Path:
    """Returns where an APK of `APKS` is."""
    return TARGET / f"{name}.apk"


def lowered(inputs: Iterable[str], out: Path, rules: Path) -> Path:
    """Returns a jar of class files of Java 7 that do what ``inputs`` do; what nothing keeps is left out."""
    home = Path(next(line.split("=")[1].strip() for line in _java_settings() if "java.home" in line))
    lines = [f"-injars {path}" for path in inputs]
    lines += [f"-outjars {out}", f"-libraryjars {sdk()[1]}"]
    lines += [
        f"-libraryjars {home}/jmods/{name}.jmod(!**.jar;!module-info.class)" for name in ("java.base", "java.logging")
    ]
    told = out.with_suffix(".pro")
    told.write_text("\n".join([*lines, f"-include {rules}", ""]), encoding="utf-8")
    out.unlink(missing_ok=True)
    run("java", "-Xmx700m", "-cp", tools(), "proguard.ProGuard", f"@{told}")
    return out


def _java_settings() -> list[str]:
    import subprocess

    told = subprocess.run(["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True)
    return told.stderr.splitlines()


def dexed(classes: Path, out: Path) -> Path:
    """Returns the dex of a jar of class files of Java 7; line numbers stay for stack traces, names of variables go."""
    command = ["java", "-Xmx700m", "-cp", tools(), "com.android.dx.command.Main"]
    run(*command, "--dex", "--no-locals", "--min-sdk-version=26", f"--output={out}", classes)
    return out


def packed(out: Path, resources: Path, dex: Path, abis: Iterable[str]) -> None:
    """Writes an APK that is not signed yet; the same content gives the same bytes."""
    with zipfile.ZipFile(out, "w", compresslevel=9) as into:
        with zipfile.ZipFile(resources) as base:
            for name in base.namelist():
                _put(into, name, base.read(name), WORD if name.endswith((".arsc", ".tflite", ".png")) else 0)
        _put(into, "classes.dex", dex.read_bytes())
        with zipfile.ZipFile(jar("javacpp-", "1.5.13.jar")) as javacpp:
            for abi in abis:  # its loader looks for this file to know what a platform's libraries are called
                name = f"org/bytedeco/javacpp/properties/{PLATFORMS[abi]}.properties"
                _put(into, name, javacpp.read(name))
        for abi in abis:
            for library in ("javacpp-", "tensorflow-lite-"):
                with zipfile.ZipFile(jar(library, f"-{PLATFORMS[abi]}.jar")) as natives:
                    for name in sorted(natives.namelist()):
                        if name.endswith(".so"):
                            _put(into, f"lib/{abi}/{Path(name).name}", natives.read(name), PAGE)


def _put(into: zipfile.ZipFile, name: str, data: bytes, align: int = 0) -> None:
    info = zipfile.ZipInfo(name, (1981, 1, 1, 1, 1, 2))
    info.create_system = 0
    info.compress_type = zipfile.ZIP_STORED if align else zipfile.ZIP_DEFLATED
    if align and into.fp is not None:
        pad = -(into.fp.tell() + 30 + len(name.encode()) + 6) % align
        info.extra = struct.pack("<HHH", ALIGNED, 2 + pad, align) + bytes(pad)
    into.writestr(info, data)


def signed(unsigned: Path, out: Path) -> Path:
    """Signs with scheme 2 and 3. RSA: the same key and bytes give the same signature, which ECDSA would not."""
    if not KEY.exists():
        about = [
            "-alias",
            "debug",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-validity",
            "10000",
            "-dname",
            "CN=fl-mobile debug",
        ]
        run("keytool", "-genkeypair", "-keystore", KEY, "-storetype", "PKCS12", "-storepass", PASSWORD, *about)
    schemes = ["--v1-signing-enabled", "false", "--v2-signing-enabled", "true", "--v3-signing-enabled", "true"]
    key = ["--ks", KEY, "--ks-pass", f"pass:{PASSWORD}", "--min-sdk-version", "26"]
    run("apksigner", "sign", *key, *schemes, "--v4-signing-enabled", "false", "--out", out, unsigned)
    return out


def main() -> None:
    """Makes the APKs of `APKS`."""
    inputs = [str(TARGET / "classes"), *(f"{module(name)}(!META-INF/**)" for name in ("core", "engine"))]
    inputs += [
        f"{jar(*ends)}(!META-INF/**,!**.properties)"
        for ends in (("tensorflow-lite-", "-1.5.13.jar"), ("javacpp-", "1.5.13.jar"))
    ]
    dex = dexed(lowered(inputs, TARGET / "lowered.jar", APP / "proguard.pro"), TARGET / "classes.dex")
    for name, (variant, abis) in APKS.items():
        unsigned = TARGET / f"{name}.unsigned"
        packed(unsigned, linked(variant), dex, abis)
        signed(unsigned, apk(name))
        unsigned.unlink()
        print(f"{apk(name).name}: {apk(name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
