"""The records that travel through the pipeline, all frozen.

| record        | made by                | read by                       |
|---------------|------------------------|-------------------------------|
| `FitPlan`     | the experiment         | engines                       |
| `Assignment`  | `server.publish`       | clients                       |
| `Update`      | engines                | `client.answer`               |
| `Receipt`     | `server.fold`          | `client.answer.keep`          |
| `PrivacyState`| `privacy.release`      | the next round's `release`    |
| `ServerState` | `Algorithm.init/apply` | server, checkpoint            |
| `RoundReport` | `server.step`          | whoever reports               |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_mobile.codecs.base import Codec
from fl_mobile.errors import ConfigError, DataError
from fl_mobile.local.losses import check_terms
from fl_mobile.local.optimizers import local_optimizer
from fl_mobile.tasks.table import CLASSIFICATION, can_train, task_row
from fl_mobile.tensors import Spec, Tensors

MODEL, ITERATE = "model", "iterate"
"""In `ServerState.averages`: the mean over rounds, and the model that the next step changes where that is another."""

SCHEDULES = ("constant", "cosine", "exponential", "inverse-sqrt")


@dataclass(frozen=True)
class FitPlan:
    """How one device trains in one round.

    Attributes:
        epochs: Passes over the device's examples.
        batch_size: Examples a step; the last short batch is trained as it is. 0 means all examples in one step.
        learning_rate: Step size of this round (a schedule over rounds has been applied already).
        optimizer: Row of `fl_mobile.local.OPTIMIZERS`; its state starts afresh on every device.
        momentum: Coefficient of ``momentum``.
        loss: Row of `fl_mobile.local.LOSSES`.
        from_logits: Whether the model's outputs still need softmax or sigmoid.
        proximal_mu: FedProx's μ: adds μ/2·‖w − w_global‖² to the loss (Li et al., MLSys 2020). 0 switches it off.
        clip_gradient_norm: Global-norm clipping of every step's gradient; 0 switches it off.
        trained: Paths of the tensors that may change; empty is all.
        shuffle: Whether examples are reordered every epoch, from the device's own seed.
        keep_zeros: Whether kernel weights that are zero stay zero in every step, not only in what is sent.
        fake_quant: Whether every step sees kernels and activations rounded as an int8 artifact rounds them.
        task: Row of `fl_mobile.tasks.TASKS`: what targets are.
        label_smoothing: Share of every target that is spread over all classes (Szegedy et al. 2016); 0 switches it off.
        class_weights: What the loss of an example, or of a position, is multiplied by, for each class; empty is 1.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    loss: str = "sparse-categorical-crossentropy"
    from_logits: bool = True
    proximal_mu: float = 0.0
    clip_gradient_norm: float = 0.0
    shuffle: bool = True
    trained: tuple[str, ...] = ()
    keep_zeros: bool = False
    fake_quant: bool = False
    task: str = CLASSIFICATION
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        local_optimizer(self.optimizer)
        check_terms(self.loss, self.task, self.label_smoothing, self.class_weights)
        if not can_train(self.task, self.loss):
            raise ConfigError(
                f"loss '{self.loss}' cannot train task '{self.task}': its losses are"
                f" {', '.join(task_row(self.task).losses)}"
            )
        if self.epochs < 1 or self.batch_size < 0:
            raise ConfigError(f"epochs must be ≥ 1 and batch-size ≥ 0, got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning-rate must be above 0, got {self.learning_rate}")
        if self.proximal_mu < 0 or self.clip_gradient_norm < 0 or not 0 <= self.momentum < 1:
            raise ConfigError("proximal-mu and clip-gradient-norm must be ≥ 0 and momentum in [0, 1)")

    def local_steps(self, examples: int) -> float:
        """Returns how far a device with so many examples moves, in SGD steps, by its optimizer's row.

        >>> FitPlan(epochs=2, batch_size=10).local_steps(25)
        6.0
        """
        steps = self.epochs * (-(-examples // self.batch_size) if self.batch_size else 1)
        return local_optimizer(self.optimizer).sgd_steps(steps, self.momentum)


@dataclass(frozen=True)
class Update:
    """What local training produced on one device, before anything is encoded.

    Attributes:
        delta: ``w_local − w_global`` for every tensor of the spec, ``float32``.
        num_examples: How many examples the device trained on (its own claim; the server clamps it).
        metrics: ``loss`` (mean over the last epoch) and whatever else the engine measured.
    """

    delta: Tensors
    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_examples < 0:
            raise DataError(f"an update cannot stand on {self.num_examples} examples")

    @property
    def loss(self) -> float:
        """Mean local loss of the last epoch; NaN if the engine measured none."""
        return float(self.metrics.get("loss", float("nan")))


@dataclass(frozen=True)
class Assignment:
    """What the server asks of every client of one round, beside the model it publishes.

    Attributes:
        round_num: The model version that clients train from, and their packets' round.
        plan: Local training.
        upload: Codec of the answer; under rate control its step changes from round to round.
        clip_norm: L2 norm that the server clips every decoded update to; 0 does not clip.
        max_examples: What the server clamps a claim of examples to; 0 does not clamp.
    """

    round_num: int
    plan: FitPlan
    upload: Codec
    clip_norm: float = 0.0
    max_examples: int = 0

    def local_steps(self, examples: int) -> float:
        """Returns how far the server believes a client of so many examples to move: `FitPlan.local_steps`."""
        return self.plan.local_steps(min(examples, self.max_examples or examples))


@dataclass(frozen=True)
class Receipt:
    """What the server says of one packet; without one, a client must take it that nothing arrived.

    Attributes:
        reason: Empty if the packet counts, else a short stable word: why it does not.
        weight: What it weighs in the aggregate.
        local_steps: How far the server believes the client moved, `FitPlan.local_steps`.
    """

    reason: str = ""
    weight: int = 0
    local_steps: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the packet is in the aggregate."""
        return not self.reason


@dataclass(frozen=True)
class PrivacyState:
    """What a private server remembers from round to round; committed with the model, or neither is.

    Attributes:
        clip_norm: L2 norm that updates of the next round are clipped to.
        key: 32 secret bytes that the next round's noise and cohort follow from; a later one says nothing of an earlier.
        charged: Rounds whose release the ledger has booked.
    """

    clip_norm: float
    key: bytes = field(repr=False)
    charged: int = 0


@dataclass(frozen=True)
class ServerState:
    """The global model between rounds.

    Attributes:
        round_num: Rounds finished so far; the next round has this number.
        weights: The global model's travelling tensors, as they are published next.
        spec: Their shapes; what every packet is checked against.
        slots: Server-optimizer state, slot name → tensors (FedAdam: ``m`` and ``v``).
        mean: What clients are to predict of the next mean update, from the last one (CAFe).
        upload_step: Step of the upload codec under rate control; None until the first round has been published.
        privacy: Under differential privacy, what the next release needs; None until the first round has been published.
        averages: What the mean over rounds is made of, and itself (`server.averaging`); empty without one.
    """

    round_num: int
    weights: Tensors
    spec: Spec
    slots: Mapping[str, Tensors] = field(default_factory=dict)
    mean: Tensors | None = None
    upload_step: float | None = None
    privacy: PrivacyState | None = None
    averages: Mapping[str, Tensors] = field(default_factory=dict)

    @property
    def model(self) -> Tensors:
        """What is evaluated and exported: the mean over rounds, or the weights where there is none."""
        return self.averages.get(MODEL, self.weights)


@dataclass(frozen=True)
class RoundReport:
    """What the server saw in one round.

    Attributes:
        round_num: The round these packets belong to.
        accepted: Packets that were decoded and added.
        dropped: Reason → number of packets that were refused; they never end a round.
        num_examples: Examples behind the average: what the accepted clients claim, each clamped.
        upload_bytes: Length of each accepted packet, rising.
        loss: Mean training loss over accepted packets, by weight; NaN if none reported one.
        mean: The mean update that was applied, or None if nothing was accepted.
        staleness: Mean number of versions the accepted updates were behind.
        weights_norm: L2 norm of the next version's trainable weights: noise that stays in them makes them longer.
    """

    round_num: int
    accepted: int
    dropped: Mapping[str, int]
    num_examples: int
    upload_bytes: tuple[int, ...]
    loss: float
    mean: Tensors | None = field(default=None, compare=False, repr=False)
    staleness: float = 0.0
    weights_norm: float = 0.0
