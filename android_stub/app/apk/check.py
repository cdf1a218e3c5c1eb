"""What every APK must be: asked of Android's tools, of the zip and of its libraries. Ends with all that is wrong."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from apk.build import APKS, PAGE, apk, dexed, lowered, packed, signed
from apk.paths import APP, TARGET, module, run
from apk.resources import linked

PERMISSIONS = {"CAMERA", "INTERNET", "ACCESS_NETWORK_STATE", "RECEIVE_BOOT_COMPLETED"}
COMPONENTS = {"CameraActivity", "TrainingActivity", "TrainJob"}
PACKAGES = ("flmobile/", "org/bytedeco/")
"""All that is in classes.dex; a library that crept in would show here."""
FEATURES = {"android.hardware.camera", "android.hardware.camera.any"}
MOST_ARM64_BYTES = 13_000_000
MOST_CORE_DEX_BYTES = 150_000


def wrong_with(name: str) -> Iterator[str]:
    """Yields what is wrong with an APK of `APKS`."""
    variant, abis = APKS[name]
    path = apk(name)
    yield from _wrong_badging(run("aapt", "dump", "badging", path), abis, debug=variant == "debug")
    yield from _wrong_network(run("aapt", "dump", "xmltree", path, "res/xml/network.xml"), debug=variant == "debug")
    signature = run("apksigner", "verify", "-v", "--min-sdk-version", "26", path)
    for scheme, wanted in (("v1", "false"), ("v2", "true"), ("v3", "true")):
        if not re.search(rf"Verified using {scheme} scheme .*: {wanted}", signature):
            yield f"signature scheme {scheme} is not {wanted}"
    run("zipalign", "-c", "-p", "4", path)
    with zipfile.ZipFile(path) as content:
        yield from _wrong_libraries(path, content, abis)
        dex = TARGET / "classes.dex"
        if content.read("classes.dex") != dex.read_bytes():
            yield "its classes.dex is not the one that was checked"
    if name == "fl-mobile-arm64-v8a" and path.stat().st_size > MOST_ARM64_BYTES:
        yield f"{path.stat().st_size:,} bytes are more than {MOST_ARM64_BYTES:,}"


def _wrong_badging(told: str, abis: tuple[str, ...], *, debug: bool) -> Iterator[str]:
    asked = {each.rpartition(".")[2] for each in re.findall(r"^uses-permission: name='([^']+)'", told, re.MULTILINE)}
    if asked != PERMISSIONS:
        yield f"permissions are {sorted(asked)}, not {sorted(PERMISSIONS)}"
    for line in ("package: name='flmobile.app'", "sdkVersion:'26'", "targetSdkVersion:'34'", "application-label-zh:"):
        if line not in told:
            yield f"badging lacks {line}"
    if "launchable-activity: name='flmobile.app.CameraActivity'" not in told:
        yield "the camera cannot be launched"
    code = re.search(r"^native-code: (.*)$", told, re.MULTILINE)
    if code is None or tuple(re.findall(r"'([^']+)'", code.group(1))) != abis:
        yield f"native code is {code and code.group(1)}, not {abis}"
    if ("application-debuggable" in told) != debug:
        yield "only the debug build may be debuggable"
    needed = set(re.findall(r"uses-feature: name='([^']+)'", told)) & FEATURES
    if needed:
        yield f"phones without {sorted(needed)} could not install it"


def _wrong_network(tree: str, *, debug: bool) -> Iterator[str]:
    hosts = {each.strip() for each in re.findall(r"C: \"([^\"]+)\"", tree)}
    expected = {"127.0.0.1", "localhost", "10.0.2.2"} if debug else set()
    if hosts != expected:
        yield f"clear text may go to {sorted(hosts)}, not {sorted(expected)}"
    allowed = re.findall(r"cleartextTrafficPermitted=\(type 0x12\)(0x\w+)", tree)
    if allowed != (["0x0", "0xffffffff"] if debug else ["0x0"]):
        yield f"clear text is allowed where it must not be: {allowed}"


def _wrong_libraries(path: Path, content: zipfile.ZipFile, abis: tuple[str, ...]) -> Iterator[str]:
    data = path.read_bytes()
    expected = {f"lib/{abi}/{name}" for abi in abis for name in ("libjnijavacpp.so", "libjnitensorflowlite.so")}
    found = {info.filename for info in content.infolist() if info.filename.startswith("lib/")}
    if found != expected:
        yield f"libraries are {sorted(found)}"
    for info in content.infolist():
        aligned = {".so": PAGE, ".arsc": 4, ".tflite": 4}.get(Path(info.filename).suffix)
        if aligned is None:
            continue
        start = info.header_offset + 30 + sum(struct.unpack("<HH", data[info.header_offset + 26 :][:4]))
        if info.compress_type != zipfile.ZIP_STORED or start % aligned:
            yield f"{info.filename} is not stored at a multiple of {aligned}"
        if info.filename.endswith(".so"):
            yield from (f"{info.filename}: {each}" for each in wrong_elf(content.read(info)))


def wrong_elf(data: bytes) -> Iterator[str]:
    """Yields what keeps a 64-bit library from loading with pages of 16 kB: segments that are aligned to less."""
    if data[:6] != b"\x7fELF\x02\x01":
        yield "no 64-bit little-endian ELF"
        return
    offset, entry, count = struct.unpack("<32xQ14xHH", data[:58])
    for at in range(offset, offset + entry * count, entry):
        kind, align = struct.unpack("<I44xQ", data[at : at + 56])
        if kind == 1 and align % PAGE:
            yield f"a segment is aligned to {align:#x}"


def wrong_classes() -> Iterator[str]:
    """Yields what is wrong with classes.dex."""
    dump = run("dexdump", "-d", TARGET / "classes.dex")
    if "invoke-custom" in dump:
        yield "a lambda survived as invoke-custom: it would fail on a phone"
    classes = set(re.findall(r"Class descriptor\s*: 'L([^;]+);'", dump))
    strange = sorted(each for each in classes if not each.startswith(PACKAGES))
    if strange:
        yield f"classes of nobody's: {strange[:5]}"
    for name in COMPONENTS:
        if f"flmobile/app/{name}" not in classes:
            yield f"the manifest names {name}, classes.dex lacks it"
    core = dexed(
        lowered([f"{module('core')}(!META-INF/**)"], TARGET / "core.jar", APP / "proguard.pro"), TARGET / "core.dex"
    )
    print(f"core: {core.stat().st_size:,} bytes of dex")
    if core.stat().st_size > MOST_CORE_DEX_BYTES:
        yield f"core has {core.stat().st_size:,} bytes of dex, more than {MOST_CORE_DEX_BYTES:,}"


def wrong_repeat(name: str) -> Iterator[str]:
    """Yields whether the same content and key give other bytes."""
    variant, abis = APKS[name]
    packed(TARGET / "again.unsigned", linked(variant), TARGET / "classes.dex", abis)
    again = signed(TARGET / "again.unsigned", TARGET / "again.apk")
    if again.read_bytes() != apk(name).read_bytes():
        yield "made again it has other bytes"
    for path in (again, TARGET / "again.unsigned"):
        path.unlink()


def main() -> None:
    """Checks them all."""
    wrong = [f"classes.dex: {each}" for each in wrong_classes()]
    for name in APKS:
        wrong += [f"{name}: {each}" for each in wrong_with(name)]
    wrong += [f"fl-mobile-arm64-v8a: {each}" for each in wrong_repeat("fl-mobile-arm64-v8a")]
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"{len(APKS)} APKs are as they must be")


if __name__ == "__main__":
    main()
