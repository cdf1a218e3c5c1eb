"""Who made a bundle: Ed25519 over the exact bytes of ``manifest.json``.

The manifest holds the SHA-256 of every other file, so one signature covers the whole folder, and nothing has to be
parsed before it is checked. ``manifest.sig`` beside it is one line of JSON:

    {"algorithm": "Ed25519", "key_id": "0f3c…", "signature": "<64 bytes in base64>"}

``key_id`` is the first 16 hexadecimal digits of the SHA-256 of the 32-byte public key. It says which key to look for;
only the key itself, from a place the bundle's sender does not write to, makes the signature worth anything. An app
ships the public key (PEM, SubjectPublicKeyInfo) and checks with what Java has, before it reads a line of the manifest:

    val der = Base64.decode(pem.lines().filterNot { it.startsWith("-----") }.joinToString(""), Base64.DEFAULT)
    val key = KeyFactory.getInstance("Ed25519").generatePublic(X509EncodedKeySpec(der))
    val sig = Base64.decode(JSONObject(File(bundle, "manifest.sig").readText()).getString("signature"), Base64.DEFAULT)
    val good = Signature.getInstance("Ed25519").run { initVerify(key); update(manifestBytes); verify(sig) }

``tests/export/bundles/test_signing.py`` runs these steps on a JVM (``java.security``, JDK 15 and later); no Android
version was tested. Ed25519 is deterministic: the same key and manifest give the same signature.

Sources: RFC 8032 (Ed25519), RFC 8410 (its PEM forms).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_mobile.errors import ConfigError, VerifyError

ALGORITHM = "Ed25519"
_MAX_PEM_BYTES = 2**16
_SIGNATURE_FORM = re.compile(
    rb'\{"algorithm": "Ed25519", "key_id": "([0-9a-f]{16})", "signature": "([A-Za-z0-9+/]{86}==)"\}\n'
)


@dataclass(frozen=True)
class PublicKey:
    """The half that checks; ``raw`` is ``bytes[32]``."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the key."""
        return self.fingerprint[:16]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key, 64 hexadecimal digits."""
        return hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True)
class SigningKey:
    """The half that signs; ``seed`` is ``bytes[32]``, secret, and never shown."""

    seed: bytes = field(repr=False)
    public: PublicKey


@dataclass(frozen=True)
class KeyFiles:
    """Where `new_key` put the two halves."""

    private: Path
    public: Path
    key: PublicKey


def new_key(stem: Path) -> KeyFiles:
    """Makes a key pair and writes ``<stem>.pem`` (mode 0600) and ``<stem>.pub.pem``.

    Raises:
        ConfigError: One of the files exists; keys are never overwritten.
        OSError: The disk refused; neither file is left behind.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private, public = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.pub.pem")
    key = Ed25519PrivateKey.generate()
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} exists already; keys are never overwritten. Choose another --out.")
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    try:
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_new(public, pem, 0o644)
    except BaseException:
        private.unlink()
        raise
    return KeyFiles(private, public, PublicKey(key.public_key().public_bytes_raw()))


def read_signing_key(path: Path) -> SigningKey:
    """Returns the private key in the PEM file ``path``.

    Raises:
        ConfigError: It is missing or holds no unencrypted Ed25519 private key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _load(
        path, lambda pem: load_pem_private_key(pem, password=None), Ed25519PrivateKey, "private key to sign with"
    )
    return SigningKey(key.private_bytes_raw(), PublicKey(key.public_key().public_bytes_raw()))


def read_public_key(path: Path) -> PublicKey:
    """Returns the public key in the PEM file ``path``.

    Raises:
        ConfigError: It is missing or holds no Ed25519 public key; a private one is refused, it belongs nowhere else.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return PublicKey(_load(path, load_pem_public_key, Ed25519PublicKey, "public key (.pub.pem)").public_bytes_raw())


def sign(manifest: bytes, key: SigningKey) -> bytes:
    """Returns the content of ``manifest.sig`` for the exact bytes ``manifest``."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _form(key.public.key_id, Ed25519PrivateKey.from_private_bytes(key.seed).sign(manifest))


def claimed_key_id(signature_file: bytes) -> str:
    """Returns the key id that ``manifest.sig`` claims; nothing is proven by it.

    Raises:
        VerifyError: The file is not what `sign` writes.
    """
    return _read_signature(signature_file)[0]


def check_signature(manifest: bytes, signature_file: bytes, key: PublicKey) -> None:
    """Returns if ``manifest`` was signed with the private half of ``key``.

    Raises:
        VerifyError: It was not; the message tells a wrong key from a changed manifest.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    claimed, signature = _read_signature(signature_file)
    if claimed != key.key_id:
        raise VerifyError(f"signed by key {claimed}, but the public key given is {key.key_id}")
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, manifest)
    except (InvalidSignature, ValueError) as error:
        raise VerifyError(
            f"the signature of key {claimed} does not fit: manifest.json or manifest.sig was changed"
        ) from error


def _form(key_id: str, signature: bytes) -> bytes:
    text = base64.b64encode(signature).decode()
    return f'{{"algorithm": "{ALGORITHM}", "key_id": "{key_id}", "signature": "{text}"}}\n'.encode()


def _read_signature(data: bytes) -> tuple[str, bytes]:
    """Takes only the bytes that `sign` writes, so that no second file of the same meaning passes."""
    found = _SIGNATURE_FORM.fullmatch(data)
    if found is None or _form(found[1].decode(), base64.b64decode(found[2])) != data:
        raise VerifyError(f"it is damaged: {len(data)} bytes that are not a signature as fl-mobile writes it")
    return found[1].decode(), base64.b64decode(found[2])


def _load(path: Path, load: Callable[[bytes], Any], kind: type, what: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        with open(path, "rb") as file:
            key = load(file.read(_MAX_PEM_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: expected a {what}: {error.strerror}. `fl-mobile keys new` makes one.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: expected a {what}, an unencrypted Ed25519 PEM file: {error}") from error
    if not isinstance(key, kind):
        raise ConfigError(f"{path}: expected a {what} of type {ALGORITHM}, found {type(key).__name__}")
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Writes a file that must not exist, never readable by others for a moment, or leaves nothing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
