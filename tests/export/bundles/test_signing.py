"""A signature fits one key and one manifest, byte for byte, and a JVM agrees."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from export.bundles.signing import (
    KeyFiles,
    PublicKey,
    SigningKey,
    check_signature,
    claimed_key_id,
    new_key,
    read_public_key,
    read_signing_key,
    sign,
)
from fl_mobile.errors import ConfigError, VerifyError

MANIFEST = b'{\n  "files": {}\n}\n'
# RFC 8032, section 7.1, test 2: a seed, its public key, and the signature of the one byte 0x72.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
JAVA = """
import java.nio.file.*; import java.security.*; import java.security.spec.*; import java.util.*;
public class Check {
  public static void main(String[] a) throws Exception {
    StringBuilder body = new StringBuilder();
    for (String line : Files.readAllLines(Path.of(a[0]))) if (!line.startsWith("-----")) body.append(line);
    PublicKey key = KeyFactory.getInstance("Ed25519")
        .generatePublic(new X509EncodedKeySpec(Base64.getDecoder().decode(body.toString())));
    String text = Files.readString(Path.of(a[2]));
    byte[] sig = Base64.getDecoder().decode(text.split("\\"signature\\": \\"")[1].split("\\"")[0]);
    Signature check = Signature.getInstance("Ed25519");
    check.initVerify(key);
    check.update(Files.readAllBytes(Path.of(a[1])));
    System.out.print(check.verify(sig));
  }
}
"""


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    return new_key(tmp_path / "keys" / "release")


def test_a_pair_is_written_secret_and_read_back(files: KeyFiles) -> None:
    assert stat.S_IMODE(files.private.stat().st_mode) == 0o600
    assert read_signing_key(files.private).public == read_public_key(files.public) == files.key
    assert files.key.fingerprint.startswith(files.key.key_id)
    assert len(files.key.key_id) == 16
    assert [path.name for path in sorted(files.private.parent.iterdir())] == ["release.pem", "release.pub.pem"]


@pytest.mark.parametrize("half", ["private", "public"])
def test_keys_are_never_overwritten(half: str, files: KeyFiles) -> None:
    kept, gone = (files.private, files.public) if half == "private" else (files.public, files.private)
    gone.unlink()
    before = kept.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        new_key(files.private.with_name("release"))
    assert kept.read_bytes() == before
    assert not gone.exists()


def test_a_secret_is_not_shown(files: KeyFiles) -> None:
    key = read_signing_key(files.private)
    shown = f"{key!r} {key} {files!r}"
    assert repr(key.seed) not in shown
    assert key.seed.hex() not in shown


def test_signature_is_the_one_of_the_rfc() -> None:
    key = SigningKey(RFC_SEED, PublicKey(RFC_PUBLIC))
    signed = sign(b"\x72", key)
    import base64
    import json

    assert base64.b64decode(json.loads(signed)["signature"]).hex() == RFC_SIGNATURE
    assert signed == sign(b"\x72", key)
    assert claimed_key_id(signed) == key.public.key_id
    check_signature(b"\x72", signed, key.public)


@pytest.mark.skipif(shutil.which("java") is None, reason="no JVM")
def test_java_security_accepts_it_and_only_it(files: KeyFiles, tmp_path: Path) -> None:
    (tmp_path / "Check.java").write_text(JAVA)
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "manifest.sig").write_bytes(sign(MANIFEST, read_signing_key(files.private)))

    def answer() -> str:
        arguments = [files.public, tmp_path / "manifest.json", tmp_path / "manifest.sig"]
        command = ["java", str(tmp_path / "Check.java"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert answer() == "true"
    (tmp_path / "manifest.json").write_bytes(MANIFEST + b" ")
    assert answer() == "false"


def test_every_flipped_bit_is_found(files: KeyFiles) -> None:
    signed = sign(MANIFEST, read_signing_key(files.private))
    for which, good in (("manifest", MANIFEST), ("signature", signed)):
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            pair = (bytes(bad), signed) if which == "manifest" else (MANIFEST, bytes(bad))
            with pytest.raises(VerifyError):
                check_signature(*pair, files.key)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:-1],
        lambda s: s + b"\n",
        lambda s: b" " + s,
        lambda s: b"",
        lambda s: b"\xff" * 300,
        lambda s: s.replace(b"Ed25519", b"none"),
        lambda s: s.replace(b"==", b""),
    ],
)
def test_only_the_written_form_is_a_signature(change: object, files: KeyFiles) -> None:
    signed = sign(MANIFEST, read_signing_key(files.private))
    with pytest.raises(VerifyError, match="damaged"):
        check_signature(MANIFEST, change(signed), files.key)  # type: ignore[operator]


def test_wrong_key_and_renamed_key_are_told_apart(files: KeyFiles, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other")
    signed = sign(MANIFEST, read_signing_key(files.private))
    with pytest.raises(VerifyError, match=f"signed by key {files.key.key_id}, but .* {other.key.key_id}"):
        check_signature(MANIFEST, signed, other.key)
    renamed = signed.replace(files.key.key_id.encode(), other.key.key_id.encode())
    with pytest.raises(VerifyError, match="does not fit"):
        check_signature(MANIFEST, renamed, other.key)


def pem_of(kind: str) -> bytes:
    if kind == "encrypted":
        return Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    if kind == "public":
        public = Ed25519PrivateKey.generate().public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "ec": lambda: ec.generate_private_key(ec.SECP256R1())}
    return key[kind]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "encrypted", "public", "rsa", "ec"])
def test_what_is_no_private_key_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello"}[kind] if kind in ("empty", "text") else pem_of(kind))
    with pytest.raises(ConfigError, match=r"key\.pem: expected a private key"):
        read_signing_key(path)


def test_a_private_key_is_no_public_key(files: KeyFiles) -> None:
    with pytest.raises(ConfigError, match="expected a public key"):
        read_public_key(files.private)
