"""What cannot meet [privacy], and why: keys that would break the claim, or let out what nobody has charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from device_sim.datasets.scaling import FEDERATED
from fl_mobile.client.private import NONE
from fl_mobile.codecs.choice import AUTO
from fl_mobile.privacy.claim import FIXED_SIZE, NONE_ASSUMED, SAMPLINGS

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment


class SectionCrossing(NamedTuple):
    """A row for `CROSSINGS`, of experiments in which a section is on: [privacy] here, [masks] beside it.

    Attributes:
        keys: The one to change first, and the one of the section that it cannot meet.
        asked: Whether the experiment holds such a value.
        told: Names the value.
        why: What would break.
        instead: What to do.
    """

    keys: tuple[str, str]
    asked: Callable[[Experiment], bool]
    told: str
    why: str
    instead: str


def codec_refused(e: Experiment) -> str:
    """Returns why [privacy] cannot take the upload codec; empty if it can."""
    named = e.upload.codec.startswith("sketch")
    if e.privacy.central and named:
        return "what it decodes to is several times as long as the update, and clipping takes most of it off"
    if e.privacy.distributed and not (named or e.upload.codec == AUTO):
        return "noise in shares goes on numbers that are clipped as one vector, which it does not send"
    if e.privacy.distributed and ("width=" in e.upload.codec or "step=" in e.upload.codec):
        return "step and width follow from clip and noise"
    return ""


_SAMPLING, _MODE = "privacy.sampling", "privacy.mode"
PRIVACY_CROSSINGS: tuple[SectionCrossing, ...] = (
    SectionCrossing(
        keys=("selection.sampler", _SAMPLING),
        asked=lambda e: e.selection.sampler not in SAMPLINGS[e.privacy.assumed].samplers,
        told="selection.sampler '{e.selection.sampler}'",
        why="ε would be claimed for a choice of devices that is another one",
        instead="use {f.private_samplers}",
    ),
    SectionCrossing(
        keys=("selection.over-selection", _SAMPLING),
        asked=lambda e: e.selection.over_selection > 1 and e.privacy.assumed != NONE_ASSUMED,
        told="selection.over-selection {e.selection.over_selection:g}",
        why="where only the first to answer count, who counts depends on all others, and sampling hides nobody",
        instead="use 1, or privacy.sampling none-assumed",
    ),
    SectionCrossing(
        keys=("fleet.availability", _SAMPLING),
        asked=lambda e: e.fleet.availability != "always" and e.privacy.assumed == FIXED_SIZE,
        told="fleet.availability '{e.fleet.availability}'",
        why="those that happen to be there are asked more often than is claimed",
        instead="use privacy.sampling poisson",
    ),
    SectionCrossing(
        keys=("policy.name", _SAMPLING),
        asked=lambda e: e.policy.name != "every-round" and e.privacy.assumed == FIXED_SIZE,
        told="policy.name '{e.policy.name}'",
        why="the others are asked more often than is claimed",
        instead="use privacy.sampling poisson",
    ),
    SectionCrossing(
        keys=("policy.min-separation-seconds", _SAMPLING),
        asked=lambda e: e.policy.min_separation_seconds > 0 and e.privacy.assumed == FIXED_SIZE,
        told="policy.min-separation-seconds {e.policy.min_separation_seconds:g}",
        why="the others are asked more often than is claimed",
        instead="use privacy.sampling poisson",
    ),
    SectionCrossing(
        keys=("train.cohort", _MODE),
        asked=lambda e: e.train.cohort < 2 and not e.privacy.local,
        told="train.cohort {e.train.cohort}",
        why="one client alone has nobody to hide among",
        instead="use at least 2, and hundreds for an ε that means something",
    ),
    SectionCrossing(
        keys=("clock.mode", _MODE),
        asked=lambda e: e.clock.mode == "asynchronous",
        told="clock.mode '{e.clock.mode}'",
        why="late updates weigh less, who is in a buffer depends on all others, and devices may answer twice a round",
        instead="use synchronous",
    ),
    SectionCrossing(
        keys=("server.aggregation", _MODE),
        asked=lambda e: e.server.aggregation != "mean" and not e.privacy.local,
        told="server.aggregation '{e.server.aggregation}'",
        why="only of a sum is it known how far one client moves it",
        instead="use mean",
    ),
    SectionCrossing(
        keys=("server.algorithm", _MODE),
        asked=lambda e: e.server.build().per_step or e.server.build().variate is not None,
        told="server.algorithm '{e.server.algorithm}'",
        why="it needs a second sum, or what clients keep of exact packets, which nobody has charged",
        instead="use fedavg, fedavgm, fedprox or fedadam",
    ),
    SectionCrossing(
        keys=("upload.memory", _MODE),
        asked=lambda e: e.upload.memory != NONE,
        told="upload.memory '{e.upload.memory}'",
        why="what clipping takes off comes back in the next update, and is taken off again",
        instead="use none",
    ),
    SectionCrossing(
        keys=("upload.codec", _MODE),
        asked=lambda e: bool(codec_refused(e)),
        told="upload.codec '{e.upload.codec}'",
        why="{f.private_codec}",
        instead="use {f.codec_instead}",
    ),
    *(
        SectionCrossing(
            keys=(f"upload.{name}", _MODE),
            asked=lambda e, name=name: getattr(e.upload, name.replace("-", "_")) > 0 and not e.privacy.local,  # type: ignore[misc]
            told=f"upload.{name} {{e.upload.{name.replace('-', '_')}}}",
            why="it would follow from sizes of packets, which nobody charges, or in shares from the noise",
            instead="use 0",
        )
        for name in ("target-ratio", "budget-bytes")
    ),
    SectionCrossing(
        keys=("policy.name", _MODE),
        asked=lambda e: e.policy.asks_norms and e.privacy.of_devices,
        told="policy.name '{e.policy.name}'",
        why="whether a device sends would tell how long its update is, before any noise",
        instead="use every-round",
    ),
    SectionCrossing(
        keys=("privacy.clip-quantile", _MODE),
        asked=lambda e: e.privacy.clip_quantile > 0 and e.privacy.of_devices,
        told="privacy.clip-quantile {e.privacy.clip_quantile:g}",
        why="the norm would follow what devices say of their updates, which nobody has charged",
        instead="use 0",
    ),
    SectionCrossing(
        keys=("data.words", _MODE),
        asked=lambda e: e.data.words > 0,
        told="data.words {e.data.words}",
        why="counts of words would be told as they are, and nobody has charged them",
        instead="use 0, which takes the whole list of data.vocabulary",
    ),
    SectionCrossing(
        keys=("data.standardize", _MODE),
        asked=lambda e: e.data.standardize == FEDERATED and e.privacy.of_devices,
        told="data.standardize '{e.data.standardize}'",
        why="devices add noise to updates, and none to the sums that come before them",
        instead="use public with data.scaling, or privacy.mode central",
    ),
    SectionCrossing(
        keys=("masks.group", _MODE),
        asked=lambda e: e.privacy.distributed and not e.masks.on,
        told="masks.group {e.masks.group}",
        why="a device's share of the noise hides nothing by itself, and only under masks does the server not see it",
        instead="set it, e.g. to 100",
    ),
    SectionCrossing(
        keys=("evaluation.device-test-fraction", _MODE),
        asked=lambda e: e.evaluation.device_test_fraction > 0,
        told="evaluation.device-test-fraction {e.evaluation.device_test_fraction:g}",
        why="accuracies that devices report tell of their examples, and nobody has charged them",
        instead="use 0",
    ),
    SectionCrossing(
        keys=("output.tuning-origin", _MODE),
        asked=lambda e: e.output.tuning_origin == "devices-agreed" and bool(e.output.tuning_data),
        told="output.tuning-origin '{e.output.tuning_origin}'",
        why="artifacts would be tuned on devices' own examples, without noise",
        instead="use public examples",
    ),
)
