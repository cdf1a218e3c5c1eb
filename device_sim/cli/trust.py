"""The options that say whom a reader of bundles believes: the same on every verb that opens one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from export.bundles.folder import Trust

PublicKeyOption = Annotated[
    Path | None,
    typer.Option("--public-key", metavar="FILE", help="NAME.pub.pem of who must have signed the bundle."),
]
RequireSignatureOption = Annotated[
    bool, typer.Option("--require-signature", help="Refuse what no given key has signed; --public-key implies it.")
]


def read_trust(public_key: Path | None, required: bool) -> Trust:
    """Returns whom the options say to believe.

    Raises:
        ConfigError: The file holds no public key.
    """
    from export.bundles.folder import Trust
    from export.bundles.signing import read_public_key

    return Trust(None if public_key is None else read_public_key(public_key), required)


def prove_command(path: Path, signed_with: Path | None) -> str:
    """Returns the command that proves what was just exported to ``path``.

    >>> prove_command(Path("bundles/release"), Path("keys/release.pem"))
    'fl-mobile verify bundles/release --public-key keys/release.pub.pem'
    """
    key = [] if signed_with is None else ["--public-key", str(signed_with.with_suffix(".pub.pem"))]
    return shlex.join(["fl-mobile", "verify", str(path), *key])
