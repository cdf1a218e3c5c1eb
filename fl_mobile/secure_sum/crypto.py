"""What the protocol needs of cryptography, from the package of that name: nothing here is of our own making.

Key agreement X25519, signatures Ed25519, sealed messages ChaCha20-Poly1305, key derivation HKDF-SHA-256.
"""

from __future__ import annotations

import functools

from fl_mobile.errors import WireError
from fl_mobile.privacy.keys import derive

KEY_BYTES, SIGNATURE_BYTES, TAG_BYTES = 32, 64, 16


def public_of(private: bytes) -> bytes:
    """Returns the X25519 public key of 32 private bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def exchange(private: bytes, public: bytes) -> bytes:
    """Returns the 32-byte secret that two clients share.

    Raises:
        WireError: The public key is zero, or a point of low order, with which everybody knows the secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    if not any(public):
        raise WireError("key", "a public key of zeros agrees on a secret that everybody knows")
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise WireError("point", "a public key is no point to agree on a secret with") from None


def identity_of(private: bytes) -> bytes:
    """Returns the Ed25519 public key of 32 private bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def sign(private: bytes, message: bytes) -> bytes:
    """Returns the Ed25519 signature."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).sign(message)


def check_signature(identity: bytes, signature: bytes, message: bytes, who: str) -> None:
    """Raises `WireError` unless the holder of ``identity`` signed ``message``."""
    if not _signed(identity, signature, message):
        raise WireError("signature", f"{who} did not sign this")


@functools.lru_cache(maxsize=1 << 13)
def _signed(identity: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature holds; all clients of a simulation are in one process, and look at the same ones."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def seal(shared: bytes, context: bytes, message: bytes) -> bytes:
    """Returns a message that only the holders of ``shared`` can read; each context is used for one message."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(derive(shared, "seal", context)).encrypt(bytes(12), message, context)


def unseal(shared: bytes, context: bytes, sealed: bytes) -> bytes:
    """Returns the message; raises `WireError` if it is not what was sealed, or in another context."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(derive(shared, "seal", context)).decrypt(bytes(12), sealed, context)
    except InvalidTag:
        raise WireError("sealed", "a sealed share was made for somebody else, or changed on its way") from None
