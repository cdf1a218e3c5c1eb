"""A client update goes in, the packet that leaves the client comes out; after the server's receipt, what it keeps.

```
update ─ mask ─ + residual ─ − prediction ─ − foreseen ─ clip, noise ─ prune, quantize, code ─ pack ─▶ packet ─▶ receipt
                    ▲                                                                                                │
                    └───────────────────────────── `keep`: residual, control variate ────────────────────────────────┘
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.client import feedback
from fl_mobile.client.state import ClientState, variate_of
from fl_mobile.codecs.base import in_round, norm_gain
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import DivergedError
from fl_mobile.privacy.local import LocalNoise, noised
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.records import Assignment, Receipt, Update
from fl_mobile.seeds import philox
from fl_mobile.tensors import Tensors, check_fits, clip_by_norm, global_norm
from fl_mobile.wire.download import Decoded
from fl_mobile.wire.pruning_mask import Masks, apply_masks


@dataclass(frozen=True)
class Terms:
    """What every answer of one round needs of the agreement, the assignment and the decoded download.

    Attributes:
        layout: Of the upload packet: the spec and the codec that the server published for the round.
        round_num: The model version the clients train from.
        residuals: Whether `Answer.wanted` is to be kept until the receipt (error feedback).
        prediction: Is taken off every update, under CAFe.
        masks: What is pruned in the version the clients train from; it is zero in all that leaves them.
        private: What the updates of tensors that do not travel are relative to.
        foreseen: Is taken off every update as often as the client made a local step: `ControlVariate.foreseen`.
        local_steps: Examples of a client → its local steps, as the server counts them.
        bare: Whether the packet says neither how many examples it stands on, only that there are some, nor the loss.
        clip_norm: L2 norm that is clipped to before encoding, where the codec inflates norms; else 0.
        noise: What a client adds to its own update, once all else but the codec is done with it.
        shares: How the numbers of a noisy sum are clipped and rounded; `client.masked` adds the noise under the mask.
    """

    layout: wire.Layout
    round_num: int
    residuals: bool = False
    prediction: Tensors | None = None
    masks: Masks = field(default_factory=dict)
    private: Tensors = field(default_factory=dict)
    foreseen: Tensors = field(default_factory=dict)
    local_steps: Callable[[int], float] = float
    bare: bool = False
    clip_norm: float = 0.0
    noise: LocalNoise | None = None
    shares: ShareNoise | None = None


@dataclass(frozen=True)
class Answer:
    """What one client has ready to send.

    Attributes:
        packet: The bytes that leave it.
        examples: It trained on.
        loss: Mean local loss of the last epoch.
        norm: L2 norm of the update before anything was encoded; NaN unless asked for.
        wanted: What it would send if sending were free, where error feedback needs it.
        delta: The raw update of what travels, if asked for.
        private: The client's own tensors after training, if it has any.
    """

    packet: bytes
    examples: int
    loss: float
    norm: float
    wanted: Tensors | None
    delta: Tensors | None
    private: Tensors


def terms_of(agreement: Agreement, assignment: Assignment, decoded: Decoded, private: Tensors) -> Terms:
    """Returns what the answers of a round need."""
    device = agreement.algorithm.variate
    foreseen = device.foreseen(decoded.beside, assignment.plan.learning_rate) if device and device.foreseen else {}
    return Terms(
        layout=wire.Layout(agreement.spec, assignment.upload),
        round_num=assignment.round_num,
        residuals=agreement.memory == "error-feedback",
        prediction=decoded.prediction,
        masks=decoded.masks,
        private=private,
        foreseen=foreseen,
        local_steps=assignment.local_steps,
        bare=agreement.bare_packets,
        clip_norm=assignment.clip_norm if norm_gain(assignment.upload, agreement.spec) > 1 else 0.0,
        noise=agreement.local_noise,
        shares=agreement.share_noise,
    )


class Own(NamedTuple):
    """What a client has of its own when it answers.

    Attributes:
        update: What local training produced, of all tensors that are trained.
        key: Of its generator for this round, ``seed_for(seed of client and round, "codec")``.
        residual: What it kept under error feedback.
        secret: The device's own 32 bytes, where it adds noise.
        keep_delta: Whether `Answer.delta` is returned.
    """

    update: Update
    key: int
    residual: Tensors | None = None
    secret: bytes = b""
    keep_delta: bool = False


def answer(
    terms: Terms,
    update: Update,
    key: int,
    *,
    residual: Tensors | None = None,
    secret: bytes = b"",
    run: str = "",
) -> Answer:
    """Returns what one client sends; arguments as in `Own`, what is raised as in `answer_each`."""
    return answer_each(terms, [Own(update, key, residual, secret)], run=run)[0]


def answer_each(terms: Terms, clients: Sequence[Own], *, run: str = "", norm: bool = False) -> list[Answer]:
    """Returns what each of some clients sends; they share nothing but the calls that make their packets.

    Args:
        run: Names the federation, where clients add noise.
        norm: Whether `Answer.norm` is measured.

    Raises:
        DivergedError: The loss or the update of one of them holds NaN or Inf.
        SpecMismatch: An update is not of the agreed spec.
    """
    deltas = [_travelling(terms, own.update) for own in clients]
    wanted = [_wanted(terms, own, delta, run) for own, delta in zip(clients, deltas, strict=True)]
    headers, keys = [_header(terms, own.update) for own in clients], [own.key for own in clients]
    if terms.shares:
        packets = [_clipped(terms, *one) for one in zip(headers, wanted, map(philox, keys), strict=True)]
    else:
        packets = terms.layout.pack_each(headers, wanted, keys)
    return [
        Answer(
            packet=packet,
            examples=own.update.num_examples,
            loss=own.update.loss,
            norm=global_norm(delta) if norm else math.nan,
            wanted=sent if terms.residuals else None,
            delta=delta if own.keep_delta else None,
            private={path: value + own.update.delta[path] for path, value in terms.private.items()},
        )
        for own, delta, sent, packet in zip(clients, deltas, wanted, packets, strict=True)
    ]


def _travelling(terms: Terms, update: Update) -> Tensors:
    """Returns the part of an update that travels."""
    if not math.isfinite(update.loss):
        raise DivergedError(f"local training ended with loss {update.loss}. Lower train.learning-rate.")
    return apply_masks({path: update.delta[path] for path in terms.layout.spec}, terms.masks)


def _wanted(terms: Terms, own: Own, delta: Tensors, run: str) -> Tensors:
    """Returns what a client would send if sending were free."""
    wanted = feedback.with_residual(delta, own.residual if terms.residuals else None)
    wanted = feedback.minus(wanted, terms.prediction)
    if terms.foreseen:
        steps = np.float32(terms.local_steps(own.update.num_examples))
        wanted = feedback.minus(wanted, {path: steps * value for path, value in terms.foreseen.items()})
    if terms.noise:
        wanted = noised(wanted, terms.noise, secret=own.secret, run=run, round_num=terms.round_num)
    wanted = apply_masks(wanted, terms.masks)
    return clip_by_norm(wanted, terms.clip_norm) if terms.clip_norm else wanted


def _header(terms: Terms, update: Update) -> wire.Header:
    told = (min(update.num_examples, 1), math.nan) if terms.bare else (update.num_examples, update.loss)
    return wire.Header(wire.UPDATE, terms.round_num, terms.round_num, *told)


def _clipped(terms: Terms, header: wire.Header, wanted: Tensors, rng: np.random.Generator) -> bytes:
    """Returns the packet whose whole numbers are clipped as one vector; it leaves with noise and under a mask only."""
    codec = in_round(terms.layout.codec, terms.round_num)
    assert terms.shares is not None
    assert isinstance(codec, Sketch)
    check_fits(wanted, terms.layout.spec, "cannot clip")
    numbers = codec.numbers({path: wanted[path] for path in terms.layout.coded})
    return terms.layout.seal(header, wanted, codec.pack(terms.shares.on_grid(numbers, rng)))


def keep(
    agreement: Agreement,
    assignment: Assignment,
    before: ClientState,
    made: Answer,
    receipt: Receipt | None,
) -> ClientState:
    """Returns what a client keeps once it knows what became of its packet.

    Only an accepted packet changes what server and client must agree on. Lost, late, surplus or refused, it leaves
    residual and control variate as they were, as if the client had not been asked: its stale update would otherwise
    be sent a second time, on top of the next. Private tensors are the client's own affair.

    Args:
        before: What it kept before this round.
        receipt: None if none came.
    """
    private = made.private or before.private
    if receipt is None or not receipt.accepted:
        return ClientState(before.residual, before.variate, private)
    residual, variate = before.residual, before.variate
    device = agreement.algorithm.variate
    if made.wanted is not None or device:
        sent = wire.unpack(made.packet, agreement.spec, assignment.upload).tensors
        if made.wanted is not None:
            residual = feedback.residual_after(made.wanted, sent, agreement.spec)
        if device:
            counted = clip_by_norm(sent, assignment.clip_norm) if assignment.clip_norm else sent
            scale = receipt.local_steps * assignment.plan.learning_rate
            variate = device.keep(variate_of(agreement, before), counted, scale)
    return ClientState(residual, variate, private)
