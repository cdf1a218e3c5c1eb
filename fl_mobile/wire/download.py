"""What travels down: one version of the model for one client, and how both ends read it.

```
model        wire packet of the whole model, of a delta to a version that the client holds (`lattice`), or of the
             sums of the rounds since that version (`forward`)
prediction   wire packet of the last mean update, under CAFe                    empty otherwise
beside       wire packet of what the algorithm sends, e.g. SCAFFOLD's c         empty otherwise
```
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import WireError
from fl_mobile.tensors import Tensors
from fl_mobile.wire.forward import Forwarding
from fl_mobile.wire.lattice import Lattice, prune_point
from fl_mobile.wire.pruning_mask import Masks, apply_masks, masks_for

PREDICTION = Ecsq(step=2.0, rounding="rdo")
"""Codec of the broadcast mean under CAFe: small, and biased is no harm where both ends use what was decoded."""


@dataclass(frozen=True)
class Download:
    """The packets one client downloads to train in a round."""

    model: bytes
    prediction: bytes = b""
    beside: bytes = b""

    def __len__(self) -> int:
        """Bytes in all."""
        return len(self.model) + len(self.prediction) + len(self.beside)


@dataclass(frozen=True)
class Decoded:
    """What a download decodes to; the same on every client, whatever version it held before.

    Attributes:
        version: Of the model.
        weights: Where local training starts; zero where `masks` say so.
        point: ``int32`` coordinates on the lattice, in delta mode: what the next delta may start from.
        prediction: What every client takes off its update before encoding, under CAFe.
        beside: What the algorithm sent, e.g. SCAFFOLD's control variate.
        masks: What is pruned in this version.
    """

    version: int
    weights: Tensors
    point: Tensors | None = None
    prediction: Tensors | None = None
    beside: Tensors = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)


def decode(
    agreement: Agreement,
    download: Download,
    *,
    version: int,
    held_version: int = 0,
    held: Tensors | None = None,
) -> Decoded:
    """Returns what a download decodes to on a client.

    Args:
        version: The model version that was asked for.
        held_version: The version the client holds; 0 is the one in the app.
        held: Its point on the lattice; None is version 0's.

    Raises:
        WireError: The packets are damaged, of another model or version, or start from a version that is not held.
    """
    lattice = agreement.lattice(version)
    if lattice is None:
        header, weights = wire.unpack(download.model, agreement.spec, agreement.download)
        _check(header, wire.MODEL, version)
        return decoded_as(agreement, download, version=version, weights=weights)
    reached, base = lattice.versions(download.model)
    if reached != version:
        raise WireError("round", f"expected model version {version}, got {reached}")
    if base not in (0, held_version):
        raise WireError("base", f"the delta starts from version {base}, this client holds {held_version}")
    start = held if held is not None and base == held_version else lattice.start
    forwarding = forwarding_of(agreement, lattice)
    if forwarding is not None and wire.kind_of(download.model) == wire.MODEL_SUMS:
        point, weights = forwarding.unpack(download.model, start)
    else:
        point, weights = lattice.unpack(download.model, start)
    return decoded_as(agreement, download, version=version, weights=weights, point=point)


def forwarding_of(agreement: Agreement, lattice: Lattice | None) -> Forwarding | None:
    """Returns how sums of rounds travel down, None where they do not."""
    if not (agreement.forward and lattice is not None and isinstance(agreement.upload, Sketch)):
        return None
    return Forwarding(lattice, agreement.upload)


def decoded_as(
    agreement: Agreement, download: Download, *, version: int, weights: Tensors, point: Tensors | None = None
) -> Decoded:
    """Returns a decoded model with its masks applied and what came beside it.

    Args:
        weights: As they were decoded, before anything is pruned in this version.
        point: Their coordinates, in delta mode.
    """
    masks = masks_for(agreement.pruning, weights, agreement.spec, version)
    prediction: Tensors | None = None
    beside: Tensors = {}
    if download.prediction:
        header, prediction = wire.unpack(download.prediction, agreement.spec, PREDICTION)
        _check(header, wire.MODEL_DELTA, version)
    if download.beside:
        header, beside = wire.unpack(download.beside, agreement.beside_spec, agreement.download)
        _check(header, wire.MODEL, version)
    return Decoded(
        version=version,
        weights=apply_masks(weights, masks),
        point=None if point is None else prune_point(point, masks),
        prediction=prediction,
        beside=beside,
        masks=masks,
    )


def _check(header: wire.Header, kind: int, version: int) -> None:
    if header.kind != kind:
        raise WireError("kind", f"expected a packet of kind {kind}, got {header.kind}")
    if (header.round_num, header.base_round) != (version, version):
        raise WireError("round", f"expected model version {version}, got {header.round_num}")
