"""The phones' half of a step, on the engine's workers right after training: update in, packet out.

The server's first half may follow at once, while a packet is still in the processor's cache: see `Ready.folded`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from device_sim.engines import Task
from fl_mobile import wire
from fl_mobile.client import feedback
from fl_mobile.client.answer import encode_update
from fl_mobile.errors import DivergedError
from fl_mobile.records import Update
from fl_mobile.seeds import rng_for
from fl_mobile.server.rounds import Fold
from fl_mobile.tensors import Tensors, global_norm
from fl_mobile.wire.pruning_mask import Masks, apply_masks


class Folding(Protocol):
    """`server.fold` told everything but the packets; picklable, because workers may be processes."""

    def __call__(self, packets: Iterable[bytes], *, sign: Literal[1, -1] = 1) -> Fold:
        """Returns the packets added up."""
        ...


@dataclass(frozen=True)
class Answer:
    """What one phone has ready to send.

    Attributes:
        device: Index in the fleet.
        packet: The bytes that leave it.
        examples: It trained on.
        loss: Mean local loss of the last epoch.
        norm: L2 norm of the update before anything was encoded; NaN unless asked for.
        wanted: What it would send if sending were free, where error feedback needs it.
        delta: The raw update, where it is to be kept for `fl-mobile measure`.
        private: The device's own tensors after training, if it has any.
    """

    device: int
    packet: bytes
    examples: int
    loss: float
    norm: float
    wanted: Tensors | None
    delta: Tensors | None
    private: Tensors


@dataclass(frozen=True)
class Ready:
    """What some phones have ready.

    Attributes:
        answers: One a phone, in task order.
        folded: All their packets added up, as if each of them arrives, if that was asked for. Sums are exact: what does
            not arrive can be taken out again.
    """

    answers: list[Answer]
    folded: Fold | None

    def add(self, other: Ready) -> None:
        """Adds what other phones have ready."""
        self.answers.extend(other.answers)
        if self.folded and other.folded:
            self.folded.merge(other.folded)


@dataclass(frozen=True)
class Phones:
    """What every phone of a step is told; called on a chunk of tasks and their updates.

    Attributes:
        layout: What travels, under the codec the server published for this step.
        round_num: The model version the devices train from.
        prediction: The last mean update as devices decode it, under CAFe.
        feedback: Whether `Answer.wanted` is to be returned.
        norms: Whether `Answer.norm` is to be measured.
        keep: Devices whose raw update is to be returned.
        private: What the updates of tensors that do not travel are relative to.
        masks: What is pruned in the version the devices train from; it is zero in all that leaves them.
        fold: Adds up a chunk's packets.
    """

    layout: wire.Layout
    round_num: int
    prediction: Tensors | None = None
    feedback: bool = False
    norms: bool = False
    keep: frozenset[int] = frozenset()
    private: Tensors = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)
    fold: Folding | None = None

    def __call__(self, tasks: Sequence[Task], updates: Sequence[Update]) -> Ready:
        """Returns every phone's answer.

        Raises:
            DivergedError: Local training gave NaN or Inf; names device and round.
        """
        both = zip(tasks, updates, strict=True)
        if self.fold is None:
            return Ready([self._answer(*one) for one in both], None)
        answers: list[Answer] = []

        def packets() -> Iterator[bytes]:
            for task, update in both:
                answers.append(self._answer(task, update))
                yield answers[-1].packet

        return Ready(answers, self.fold(packets()))

    def _answer(self, task: Task, update: Update) -> Answer:
        delta, loss = {path: update.delta[path] for path in self.layout.spec}, update.metrics["loss"]
        delta = apply_masks(delta, self.masks)
        kept = task.residual if self.feedback else None
        wanted = apply_masks(feedback.minus(feedback.with_residual(delta, kept), self.prediction), self.masks)
        rng = rng_for(task.seed, "codec")
        try:
            if not math.isfinite(loss):
                raise DivergedError(f"local training ended with loss {loss}. Lower train.learning-rate.")
            sent = Update(wanted, update.num_examples, update.metrics)
            packet = encode_update(sent, self.layout, rng, round_num=self.round_num)
        except DivergedError as error:
            raise DivergedError(f"device {task.device}, round {self.round_num}: {error}") from None
        return Answer(
            task.device,
            packet,
            update.num_examples,
            loss,
            global_norm(delta) if self.norms else math.nan,
            wanted if self.feedback else None,
            delta if task.device in self.keep else None,
            {path: value + update.delta[path] for path, value in self.private.items()},
        )
