"""Every two sections of an experiment that cannot meet, and why: one table, looked through before anything runs.

What a section alone can tell is checked where the section is; ``tests/crossings`` has all pairs of features meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from device_sim.engines import ENGINES
from device_sim.experiment.kept import BEST, kept_by
from device_sim.experiment.masks_crossings import MASKS_CROSSINGS
from device_sim.experiment.personal import DITTO, ONLY_HEAD
from device_sim.experiment.privacy_crossings import PRIVACY_CROSSINGS, codec_refused
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.algorithms import ALGORITHMS
from fl_mobile.client.private import NONE
from fl_mobile.codecs import Codec, contracting
from fl_mobile.codecs.choice import AUTO
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError
from fl_mobile.local.optimizers import OPTIMIZERS
from fl_mobile.privacy.claim import SAMPLINGS

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment
    from fl_mobile.algorithms import Algorithm
    from fl_mobile.records import FitPlan


@dataclass(frozen=True)
class Facts:
    """An experiment ``e``, and what follows from it."""

    e: Experiment

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm with its parameters."""
        return self.e.server.build()

    @cached_property
    def plan(self) -> FitPlan:
        """Local training of round 0 as the algorithm wants it."""
        return self.algorithm.plan(self.e.train.plan(0, from_logits=True))

    @property
    def codec(self) -> Codec:
        """Of uploads."""
        return self.e.codec_of_uploads()[0]

    @property
    def why_not_late(self) -> str:
        """Why an update for an older model is no use to the algorithm; empty if it is."""
        if self.algorithm.variate is not None:
            return "what a device keeps and what the server holds would belong to different versions"
        lower = "(docs/combinations.md); use fedavg, fedprox or fednova"
        if self.algorithm.init({}, {}).slots:
            return (
                f"what it remembers of its steps, met by updates for an older model, ends 2 to 7 points lower {lower}"
            )
        asked = replace(self.e.train.plan(0, from_logits=True), epochs=2, batch_size=1)
        if self.algorithm.plan(asked).local_steps(2) == 1:
            return f"one step a device, made for an older model and weighing less, ends 6 to 8 points lower {lower}"
        return ""

    @property
    def forward(self) -> bool:
        """Whether sums of rounds travel down."""
        return self.e.download.mode == "forward"

    @property
    def keeps(self) -> bool:
        """Whether clients keep something, or the server looks at single steps: both are derived for plain packets."""
        return self.algorithm.per_step or self.algorithm.variate is not None

    @property
    def one_say(self) -> bool:
        """Whether the aggregation rule gives every update the same say."""
        return not AGGREGATORS[self.e.server.aggregation].mean

    @property
    def too_few(self) -> str:
        """Why a whole cohort is too small for the aggregation rule; empty if it is not."""
        return self.e.server.rule().too_few(self.e.train.cohort)

    @property
    def waits(self) -> bool:
        """Whether the server waits for a cohort."""
        return self.e.clock.mode != "asynchronous"

    @property
    def optimizers(self) -> str:
        """Local optimizers that fit the algorithm."""
        return " or ".join(self.algorithm.optimizers)

    @property
    def free_engines(self) -> str:
        """Engines that can train parts of a model."""
        return " or ".join(name for name, row in ENGINES.items() if row.abilities.holds_still)

    @property
    def pruning_engines(self) -> str:
        """Engines that keep zeros."""
        return " or ".join(name for name, row in ENGINES.items() if row.abilities.keeps_zeros)

    @property
    def private_samplers(self) -> str:
        """Samplers that keep what privacy.sampling claims."""
        return " or ".join(SAMPLINGS[self.e.privacy.assumed].samplers)

    @property
    def by_examples(self) -> bool:
        """Whether the codec's step follows from a client's examples."""
        return isinstance(self.codec, Ecsq) and self.codec.examples > 0

    @property
    def private_codec(self) -> str:
        """Why [privacy] cannot take the upload codec."""
        return codec_refused(self.e)

    @property
    def codec_instead(self) -> str:
        """A codec that it can take."""
        return "sketch, e.g. sketch:k=2048" if self.e.privacy.distributed else "ecsq"

    @property
    def forwarded(self) -> str:
        """Algorithms whose steps can be forwarded."""
        return " or ".join(FORWARDED)

    @property
    def qat_engines(self) -> str:
        """Engines that train with rounding."""
        return " or ".join(name for name, row in ENGINES.items() if row.abilities.fake_quant)


@dataclass(frozen=True)
class Crossing:
    """Two keys, some values of which do not go together.

    Attributes:
        keys: Both, the one to change first.
        meet: Whether an experiment holds such values.
        reason: The whole message; ``{f.…}`` is of the facts, ``{e.…}`` of the experiment.
    """

    keys: tuple[str, str]
    meet: Callable[[Facts], bool]
    reason: str


FORWARDED = ("fedavg", "fedsgd", "fedprox", "fednova")
"""Algorithms whose server step is a multiple of a mean of the uploads; one of one's own is found out while it steps."""


def _own_beside(optimizers: tuple[str, ...]) -> list[str]:
    """Returns optimizers of the user's own, where the derivation holds for all that are shipped."""
    own = OPTIMIZERS.own()
    return own if {*OPTIMIZERS} - {*own} <= {*optimizers} else []


CROSSINGS: tuple[Crossing, ...] = (
    Crossing(
        ("train.cohort", "data.devices"),
        lambda f: f.e.data.counts_devices and f.e.train.cohort > f.e.data.devices,
        "train.cohort ({e.train.cohort}) must not exceed data.devices ({e.data.devices}): a round cannot choose more"
        " devices than there are",
    ),
    Crossing(
        ("server.algorithm", "train.optimizer"),
        lambda f: f.e.train.optimizer not in (*f.algorithm.optimizers, *_own_beside(f.algorithm.optimizers)),
        "server.algorithm '{f.algorithm.name}' takes an update for a sum of gradients, which train.optimizer"
        " '{e.train.optimizer}' breaks; use {f.optimizers}",
    ),
    Crossing(
        ("upload.memory", "server.algorithm"),
        lambda f: f.e.upload.memory != NONE and f.keeps,
        "upload.memory '{e.upload.memory}' cannot be used with server.algorithm '{f.algorithm.name}', which needs each"
        " packet to hold the update of its own round alone; use none",
    ),
    Crossing(
        ("upload.codec", "server.algorithm"),
        lambda f: f.algorithm.variate is not None and not contracting(f.codec).contracts,
        "upload.codec '{f.codec.name}' cannot be used with server.algorithm '{f.algorithm.name}': it adds more noise"
        " than there is update, and what clients keep would take it up in every round; use ecsq, q4 to q8, or"
        " topk:0.05+q8",
    ),
    Crossing(
        ("server.algorithm", "clock.mode"),
        lambda f: bool(f.why_not_late) and not f.waits,
        "server.algorithm '{f.algorithm.name}' cannot be used with clock.mode asynchronous: {f.why_not_late}",
    ),
    Crossing(
        ("train.cohort", "server.aggregation"),
        lambda f: bool(f.too_few),
        "train.cohort ({e.train.cohort}) is too small for server.aggregation '{e.server.aggregation}': {f.too_few}",
    ),
    Crossing(
        ("server.aggregation", "server.algorithm"),
        lambda f: f.one_say and f.keeps,
        "server.aggregation '{e.server.aggregation}' cannot be used with server.algorithm '{f.algorithm.name}', which"
        " needs the mean of the updates; use mean",
    ),
    Crossing(
        ("server.aggregation", "upload.memory"),
        lambda f: f.one_say and f.e.upload.memory != NONE,
        "server.aggregation '{e.server.aggregation}' cannot be used with upload.memory '{e.upload.memory}', which needs"
        " the mean of the updates: what one round leaves out the next makes up for. Use mean, or upload.memory none",
    ),
    Crossing(
        ("server.averaging-broadcast", "server.algorithm"),
        lambda f: f.e.server.averages().broadcast and f.algorithm.variate is not None,
        "server.averaging-broadcast cannot be used with server.algorithm '{f.algorithm.name}': what its clients keep is"
        " derived for the model that the server's last step reached; leave it false, the mean is exported all the same",
    ),
    Crossing(
        ("server.aggregation", "clock.mode"),
        lambda f: f.one_say and not f.waits,
        "server.aggregation '{e.server.aggregation}' cannot be used with clock.mode asynchronous: late updates weigh"
        " less there, and this rule gives all the same say; use mean",
    ),
    Crossing(
        ("personal.method", "evaluation.device-test-fraction"),
        lambda f: f.e.personal.method != NONE and not f.e.evaluation.device_test_fraction,
        "personal.method '{e.personal.method}' needs evaluation.device-test-fraction above 0, e.g. 0.2: only on a"
        " device's own held-out examples does it show",
    ),
    Crossing(
        ("personal.method", "engine.name"),
        lambda f: f.e.personal.method in (ONLY_HEAD, DITTO) and not ENGINES[f.e.engine.name].abilities.holds_still,
        "personal.method '{e.personal.method}' needs engine.name {f.free_engines}",
    ),
    Crossing(
        ("personal.private", "server.algorithm"),
        lambda f: f.e.personal.private != NONE and f.plan.proximal_mu > 0,
        "personal.private cannot be used with an algorithm that pulls devices to the server's model, because the server"
        " has no private tensors to pull to; use fedavg, scaffold or fednova",
    ),
    Crossing(
        ("output.recipes", "personal.private"),
        lambda f: f.e.personal.private != NONE and len(f.e.output.recipes) > 0,
        "output.recipes must be [] with personal.private: the server never sees the private tensors, so its model is"
        " not one that any device uses, and there is nothing worth exporting",
    ),
    Crossing(
        ("output.keep", "personal.private"),
        lambda f: f.e.output.keep == BEST and f.e.personal.private != NONE,
        "output.keep best cannot be used with personal.private: the private tensors on the devices are those of the"
        " last round, whatever round the server goes back to",
    ),
    Crossing(
        ("output.keep-by", "evaluation.every"),
        lambda f: kept_by(f.e.output.keep_by).on_devices and not f.e.evaluation.every,
        "output.keep-by '{e.output.keep_by}' is measured on devices in the rounds that evaluation.every names; set it,"
        " e.g. to 1",
    ),
    Crossing(
        ("train.pruning.sparsity", "personal.private"),
        lambda f: f.e.train.pruning.sparsity > 0 and f.e.personal.private != NONE,
        "train.pruning cannot be used with personal.private '{e.personal.private}': masks follow from weights that the"
        " server and all devices share. Set train.pruning.sparsity to 0, or personal.private to none.",
    ),
    Crossing(
        ("train.pruning.sparsity", "engine.name"),
        lambda f: f.e.train.pruning.sparsity > 0 and not ENGINES[f.e.engine.name].abilities.keeps_zeros,
        "train.pruning: engine.name '{e.engine.name}' cannot keep zeros; use {f.pruning_engines}",
    ),
    Crossing(
        ("train.qat.begin-round", "engine.name"),
        lambda f: f.e.train.qat.on and not ENGINES[f.e.engine.name].abilities.fake_quant,
        "train.qat: engine.name '{e.engine.name}' cannot train with rounding; use {f.qat_engines}",
    ),
    Crossing(
        ("upload.codec", "server.weighting"),
        lambda f: f.by_examples and not f.e.weighs_examples,
        "upload.codec '{f.codec.name}' takes finer steps where there are more examples, and here every update has the"
        " same say (server.weighting uniform, another server.aggregation than mean, masks or privacy); leave out"
        " examples={f.codec.examples}",
    ),
    Crossing(
        ("download.ternary", "download.mode"),
        lambda f: bool(f.e.download.ternary) and not f.forward,
        "download.ternary says which of a round's sums are forwarded; it needs download.mode forward, got"
        " '{e.download.mode}'",
    ),
    Crossing(
        ("download.mode", "upload.codec"),
        lambda f: f.forward and not (isinstance(f.codec, Sketch) or f.e.upload.codec == AUTO),
        "download.mode forward needs upload.codec sketch, got '{f.codec.name}': only where all clients of a round share"
        " a projection do a few sums say what the round did",
    ),
    Crossing(
        ("download.mode", "server.algorithm"),
        lambda f: f.forward and f.e.server.algorithm in ALGORITHMS and f.e.server.algorithm not in FORWARDED,
        "download.mode forward cannot be used with server.algorithm '{f.algorithm.name}', whose step is more than a"
        " multiple of the round's mean; use {f.forwarded}, or download.mode delta",
    ),
    *(
        Crossing(
            ("download.mode", key),
            lambda f, asked=asked: f.forward and asked(f.e),  # type: ignore[misc]
            f"download.mode forward cannot be used with {key}: {why}. Use download.mode delta",
        )
        for key, asked, why in (
            ("clock.mode", lambda e: e.clock.mode == "asynchronous", "a step mixes updates of several projections"),
            ("train.pruning.sparsity", lambda e: e.train.pruning.sparsity > 0, "what dies is no part of the sums"),
            ("upload.memory", lambda e: e.upload.memory == "cafe", "what is predicted is no part of the sums"),
            (
                "server.averaging-broadcast",
                lambda e: e.server.averages().broadcast,
                "a mean over rounds is no sum of a round",
            ),
        )
    ),
    *(  # of the asynchronous server
        Crossing(
            (key, "clock.mode"),
            lambda f, asked=asked: not f.waits and asked(f.e),  # type: ignore[misc]
            f"{key} cannot be used with clock.mode asynchronous: {why}",
        )
        for key, asked, why in (
            ("upload.memory", lambda e: e.upload.memory != NONE, "what a codec left out belongs to one round"),
            (
                "upload.target-ratio",
                lambda e: e.upload.target_ratio > 0 and not e.upload.codec.startswith("sketch"),
                "updates of several versions meet in one step",
            ),
            (
                "upload.budget-bytes",
                lambda e: e.upload.budget_bytes > 0 and not e.upload.codec.startswith("sketch"),
                "updates of several versions meet in one step",
            ),
            ("selection.over-selection", lambda e: e.selection.over_selection > 1, "no round waits for anybody"),
            ("clock.deadline-seconds", lambda e: e.clock.deadline_seconds > 0, "no round waits for anybody"),
        )
    ),
    *(
        Crossing(
            row.keys,
            lambda f, row=row: f.e.privacy.on and row.asked(f.e),  # type: ignore[misc]
            f"{row.told} cannot be used with {row.keys[1]} '{{e.{row.keys[1]}}}': {row.why}; {row.instead}",
        )
        for row in PRIVACY_CROSSINGS
    ),
    *(
        Crossing(
            row.keys,
            lambda f, row=row: f.e.masks.on and row.asked(f.e),  # type: ignore[misc]
            f"{row.told} cannot be used with masked sums ({row.keys[1]} {{e.{row.keys[1]}}}): {row.why}; {row.instead}",
        )
        for row in MASKS_CROSSINGS
    ),
)
"""Looked through from the top; the first pair that meets is told."""


def check_crossings(experiment: Experiment) -> None:
    """Raises `ConfigError` with the reason if two sections of ``experiment`` do not go together."""
    facts = Facts(experiment)
    for crossing in CROSSINGS:
        if crossing.meet(facts):
            raise ConfigError(crossing.reason.format(f=facts, e=experiment))
