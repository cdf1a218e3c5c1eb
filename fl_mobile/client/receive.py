"""A download comes in; out comes what the client trains from and what it holds from now on."""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.agreement import Agreement
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Decoded, Download, decode


@dataclass(frozen=True)
class Held:
    """The model version a client holds, from which the server may send it a difference.

    Attributes:
        version: 0 is the model in the app.
        point: Its ``int32`` coordinates on the lattice; None is version 0's, or no lattice at all.
    """

    version: int = 0
    point: Tensors | None = None


IN_THE_APP = Held()


def receive(agreement: Agreement, download: Download, *, version: int, held: Held) -> tuple[Decoded, Held]:
    """Returns what a download decodes to, and what the client holds from now on.

    Args:
        version: The model version that was asked for.
        held: What it holds so far; it keeps that if this raises.

    Raises:
        WireError: The packets are damaged, of another model or version, or start from a version that is not held.
    """
    decoded = decode(agreement, download, version=version, held_version=held.version, held=held.point)
    return decoded, Held(version, decoded.point)
