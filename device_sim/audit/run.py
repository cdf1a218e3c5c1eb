"""A run audited: three questions, each asked of the run as it is and of one with clipping and noise, pictures also of a
sum under masks.

Nothing of the run is changed. Canaries and pictures are about its first round, played again; members about its model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.audit.canaries import CanaryBound, canary_bound
from device_sim.audit.gaussian import epsilon_of
from device_sim.audit.inversion import Recovery, psnr, recover
from device_sim.audit.membership import Membership, membership
from device_sim.audit.own_noise import packet_bound, sum_bound
from device_sim.engines import Task, train_each
from device_sim.engines.trainers.steps import answers, as_input
from device_sim.federation.federation import Federation
from fl_mobile import wire
from fl_mobile.agreement import Agreement
from fl_mobile.codecs import parse_codec
from fl_mobile.errors import ConfigError
from fl_mobile.local.losses import loss_of
from fl_mobile.models import keras_bridge
from fl_mobile.records import FitPlan, Update
from fl_mobile.seeds import rng_for, seed_for
from fl_mobile.server.step import ServerRules
from fl_mobile.storage.shelf import Shelf
from fl_mobile.tasks.table import CLASSIFICATION
from fl_mobile.tensors import Tensors, clip_by_norm, global_norm

EXAMPLES = 2000
"""So many members, and others, are looked at."""
PICTURES = (1, 4)
"""Sizes of the batches that are recovered."""
SEEN_AT_ONCE = 256
MOST_IN_A_SUM = 100
"""Clients of the masked sum that a batch is looked for in."""

Pictures = tuple[tuple[tuple[np.ndarray, "tuple[Sheet, ...]"], ...], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Question:
    """What is asked beside the run as it is.

    Attributes:
        noise: Multiplier of the Gaussian noise of the run it is compared with.
        delta: Of every ε.
    """

    noise: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not 0.3 <= self.noise <= 1e3:
            raise ConfigError(f"--noise must be from 0.3 to 1000, got {self.noise}: less hides nobody")
        if not 0 < self.delta < 1:
            raise ConfigError(f"--delta must be above 0 and below 1, e.g. 1e-5, got {self.delta}")


@dataclass(frozen=True)
class Sheet:
    """Pictures of one batch.

    Attributes:
        title: What was done to the update before it was seen.
        recovery: What came out.
    """

    title: str
    recovery: Recovery


@dataclass(frozen=True)
class Audit:
    """What a run leaks.

    Attributes:
        canaries: The first round as the run has it, then with clipping and noise.
        noise: Multiplier of the second.
        claimed: ε of both, one round, no amplification; None where the run claims nothing.
        members: A threshold on the loss of the run's model.
        batches: ``float32[n, …]`` originals in [0, 1], and what was recovered of them; none where examples are no
            pictures.
        blank: ``float64[n]`` per batch: PSNR of the mean picture, which nobody's update is needed for.
    """

    canaries: tuple[CanaryBound, CanaryBound]
    noise: float
    claimed: tuple[float | None, float]
    members: Membership
    batches: tuple[tuple[np.ndarray, tuple[Sheet, ...]], ...]
    blank: tuple[np.ndarray, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns all numbers; pictures are in the page."""
        as_it_ran, noisy = self.canaries
        return {
            "canaries": {
                "as_it_ran": {**asdict(as_it_ran), "claimed_epsilon": self.claimed[0]},
                "with_noise": {**asdict(noisy), "noise_multiplier": self.noise, "claimed_epsilon": self.claimed[1]},
            },
            "membership": asdict(self.members),
            "reconstruction": [
                {
                    "batch": len(truth),
                    "update": sheet.title,
                    "method": sheet.recovery.method,
                    "psnr_db": sheet.recovery.psnr.tolist(),
                    "mean_picture_psnr_db": blank.tolist(),
                }
                for (truth, sheets), blank in zip(self.batches, self.blank, strict=True)
                for sheet in sheets
            ],
        }


def audit(federation: Federation, weights: Tensors, question: Question, say: Callable[[str], None]) -> Audit:
    """Returns what a run leaks.

    Args:
        federation: Of the run's experiment.
        weights: Of its model, what travels.
        say: Told before each part.

    Raises:
        ConfigError: The model is too small, or its rule listens to no canary.
        DataError: Too few examples.
    """
    say("canaries: playing a round of them")
    canaries = audit_canaries(federation, question)
    say("membership: losses of training and held-out examples")
    members = audit_members(federation, weights)
    pictures: Pictures = ((), ())
    if len(federation.dataset.input_shape) == 3 and federation.dataset.task == CLASSIFICATION:
        say(f"reconstruction: batches of {' and '.join(map(str, PICTURES))} out of one update")
        pictures = audit_pictures(federation, question)
    claimed = claimed_in_a_round(federation, question.delta), epsilon_of(1 / question.noise, question.delta)
    return Audit(canaries, question.noise, claimed, members, *pictures)


def claimed_in_a_round(federation: Federation, delta: float) -> float | None:
    """Returns the ε that one answer costs, not amplified; None where nothing is claimed.

    What is hidden moves by C and is under noise of z·C; in one packet under `local`, where any update may stand for any
    other, by 2C.
    """
    keys = federation.experiment.privacy
    if federation.claim is None:
        return None
    return epsilon_of((2 if keys.local else 1) / federation.claim.noise_multiplier, delta)


def audit_canaries(federation: Federation, question: Question) -> tuple[CanaryBound, CanaryBound]:
    """Returns the bound of the first round, as the run has it, and without codec and [privacy] but noise on the sum."""
    rules, seed = federation.rules, federation.experiment.seed
    plan = federation.plain_plan(0)
    as_it_is = replace(federation.agreement, masks=None)  # a masked sum is that of the packets, to the bit
    bare = replace(as_it_is, upload=parse_codec("none"), local_noise=None, share_noise=None)

    def bound(agreement: Agreement, rules: ServerRules, noise: float) -> CanaryBound:
        with tempfile.TemporaryDirectory() as folder:
            return canary_bound(
                agreement, rules, plan, Shelf(Path(folder)), delta=question.delta, seed=seed, noise=noise
            )

    noisy = bound(bare, replace(rules, privacy=None), question.noise)
    if as_it_is.local_noise:
        return packet_bound(as_it_is, as_it_is.local_noise, delta=question.delta, seed=seed), noisy
    if as_it_is.share_noise:
        return sum_bound(as_it_is.share_noise, delta=question.delta, seed=seed), noisy
    return bound(as_it_is, rules, 0.0), noisy


def audit_members(federation: Federation, weights: Tensors) -> Membership:
    """Returns what the losses of the run's model give away of who was trained on."""
    seed, dataset = federation.experiment.seed, federation.dataset
    model = federation.build()
    keras_bridge.write(model, federation.whole(weights))
    chosen = rng_for(seed, "audit", "test").permutation(len(dataset.test.y))[:EXAMPLES]
    others = dataset.test.x[chosen], dataset.test.y[chosen]
    members = _losses(federation, model, *_on_devices(federation))
    return membership(members, _losses(federation, model, *others), seed)


def _on_devices(federation: Federation) -> tuple[np.ndarray, np.ndarray]:
    """Returns examples that some devices train on."""
    held, count = [], 0
    for device in rng_for(federation.experiment.seed, "audit", "devices").permutation(federation.data.population):
        held.append(federation.data.examples(int(device)))
        count += len(held[-1][1])
        if count >= EXAMPLES:
            break
    return np.concatenate([x for x, _ in held])[:EXAMPLES], np.concatenate([y for _, y in held])[:EXAMPLES]


def _losses(federation: Federation, model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    plan = federation.plain_plan(0)
    each = []
    for at in range(0, len(y), SEEN_AT_ONCE):
        out = answers(model(as_input(_tensor(x[at : at + SEEN_AT_ONCE])), training=False))
        some = _tensor(y[at : at + SEEN_AT_ONCE])
        each.append(loss_of(plan.loss, some, out, from_logits=plan.from_logits, task=federation.dataset.task).numpy())
    return np.concatenate(each).astype(np.float64)


def audit_pictures(federation: Federation, question: Question) -> Pictures:
    """Returns batches with what was recovered of them, and what the mean picture would have reached."""
    train = federation.dataset.train
    brightest = 255.0 if train.x.dtype == np.uint8 else float(train.x.max()) or 1.0
    mean = train.x[:EXAMPLES].mean(axis=0) / brightest
    batches, blank = [], []
    for size in PICTURES:
        x, y = _batch(federation, size)
        truth = (x / brightest).astype(np.float32)
        batches.append(
            (truth, _sheets(federation=federation, question=question, x=x, y=y, truth=truth, brightest=brightest))
        )
        blank.append(np.array([psnr(one, mean) for one in truth]))
    return tuple(batches), tuple(blank)


def _batch(federation: Federation, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns training examples of different classes, as far as there are."""
    train = federation.dataset.train
    order = rng_for(federation.experiment.seed, "audit", "batch").permutation(len(train.y))
    _, first = np.unique(train.y[order], return_index=True)
    chosen = np.concatenate([np.sort(first), np.setdiff1d(np.arange(len(order)), first)])[:size]
    return train.x[order[chosen]], train.y[order[chosen]]


def _sheets(
    federation: Federation, question: Question, x: np.ndarray, y: np.ndarray, truth: np.ndarray, brightest: float
) -> tuple[Sheet, ...]:
    """Returns what is recovered of a client that makes one step on a batch, by what is done to its update."""
    keys, seed = federation.experiment, federation.experiment.seed
    rate, logits = keys.train.learning_rate, federation.engine.from_logits
    plan = FitPlan(batch_size=0, learning_rate=rate, loss=keys.train.loss, from_logits=logits)
    weights = federation.whole(federation.initial)
    tasks = [Task(0, x, y, seed_for(seed, "audit", "client")), *_neighbours(federation, len(y))]
    (_, update), *others = train_each(federation.engine, weights, tasks, plan)
    delta = {path: update.delta[path] for path in federation.spec}
    summed = {path: sum((other.delta[path] for _, other in others), delta[path]) for path in delta}
    sent = _through_the_wire(federation, replace(update, delta=delta))
    model = federation.build()

    def recovered(title: str, seen: Tensors) -> Sheet:
        gradient = {path: value / np.float32(-plan.learning_rate) for path, value in seen.items()}
        found = recover(
            model,
            federation.initial,
            gradient,
            truth,
            loss=lambda labels, out: loss_of(plan.loss, labels, answers(out), from_logits=plan.from_logits),
            classes=federation.dataset.num_classes,
            brightest=brightest,
        )
        return Sheet(title, found)

    noisy = _with_noise(delta, question.noise, rng_for(seed, "audit", "noise"))
    codec = federation.upload.name
    return (
        recovered("the update itself", delta),
        *([recovered(f"decoded from {codec}", sent)] if codec != "none" else []),
        recovered(f"clipped, noise {question.noise:g}", noisy),
        recovered(f"the sum of {len(tasks)} clients, all that masks show", summed),
    )


def _neighbours(federation: Federation, count: int) -> list[Task]:
    """Returns what the other clients of a masked sum train on: as many clients as the run's sums have, or a cohort."""
    keys, data = federation.experiment, federation.data
    group = min(keys.masks.group or keys.train.cohort, MOST_IN_A_SUM, data.population)
    devices = rng_for(keys.seed, "audit", "sum").permutation(data.population)[: group - 1].tolist()
    held = [(device, *data.examples(device)) for device in devices]
    return [Task(device, x[:count], y[:count], seed_for(keys.seed, "audit", device)) for device, x, y in held]


def _through_the_wire(federation: Federation, update: Update) -> Tensors:
    layout = wire.Layout(federation.spec, federation.upload)
    header = wire.Header(wire.UPDATE, 0, 0, update.num_examples, update.loss)
    packet = layout.pack(header, update.delta, rng_for(federation.experiment.seed, "audit", "codec"))
    return layout.unpack(packet).tensors


def _with_noise(delta: Tensors, noise: float, rng: np.random.Generator) -> Tensors:
    """Returns a round's released sum where every other client is known: its one update, clipped, under the noise."""
    norm = global_norm(delta)
    clipped = clip_by_norm(delta, norm)
    return {p: (v + rng.normal(0, noise * norm, v.shape)).astype(np.float32) for p, v in clipped.items()}


def _tensor(values: np.ndarray) -> Any:
    import tensorflow as tf

    return tf.constant(values)
