"""``fl-mobile keys``: the key pair that signs bundles."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.cli.output import Format, FormatOption, print_json

if TYPE_CHECKING:
    from export.bundles.signing import PublicKey


class Action(str, Enum):
    """What to do with keys."""

    NEW = "new"
    SHOW = "show"


def keys(
    action: Annotated[Action, typer.Argument(metavar="new|show", help="Make a key pair, or identify a key file.")],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="show: a public or private key.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR/NAME", help="new: writes NAME.pem (secret, mode 0600) and NAME.pub.pem.")
    ] = Path("signing-key"),
    output: FormatOption = Format.TEXT,
) -> None:
    """Make the Ed25519 key pair that signs bundles, or show whose key a file holds.

    Sign with the private key (`export --sign`), give the public one to whoever verifies. Keys are never overwritten.

    Examples:
      fl-mobile keys new --out keys/release
      fl-mobile keys show keys/release.pub.pem
    """
    if action is Action.SHOW:
        if file is None:
            raise typer.BadParameter("show needs a key file, e.g. keys/release.pub.pem")
        key = _read(file)
        _print({"file": str(file), "key_id": key.key_id, "sha256": key.fingerprint}, output)
        return
    if file is not None:
        raise typer.BadParameter(f"new takes no file; did you mean --out {file}?")
    from export.bundles.signing import new_key

    made = new_key(out)
    _print(
        {
            "private": str(made.private),
            "public": str(made.public),
            "key_id": made.key.key_id,
            "sha256": made.key.fingerprint,
        },
        output,
    )
    if output is Format.TEXT:
        print(f"Keep {made.private} secret: whoever has it can sign in your name. It is not encrypted.")


def _read(file: Path) -> PublicKey:
    """Returns the public half of the key in ``file``, whichever half that is."""
    from export.bundles.signing import read_public_key, read_signing_key
    from fl_mobile.errors import ConfigError

    try:
        return read_public_key(file)
    except ConfigError as error:
        try:
            return read_signing_key(file).public
        except ConfigError:
            raise error from None


def _print(fields: dict[str, str], output: Format) -> None:
    if output is Format.JSON:
        print_json(fields)
        return
    for name, value in fields.items():
        print(f"{name.replace('_', ' ')}: {value}")
