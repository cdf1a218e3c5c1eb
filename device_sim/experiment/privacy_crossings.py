"""What cannot meet [privacy], and why: keys that would break the claim, or let out what nobody has charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fl_mobile.client.private import NONE
from fl_mobile.privacy.claim import FIXED_SIZE, NONE_ASSUMED, SAMPLINGS

if TYPE_CHECKING:
    from device_sim.experiment.experiment import Experiment


class PrivacyCrossing(NamedTuple):
    """A row for `CROSSINGS`, of experiments with privacy.

    Attributes:
        keys: The one to change first, and the one of [privacy] that it cannot meet.
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


_SAMPLING, _MODE = "privacy.sampling", "privacy.mode"
PRIVACY_CROSSINGS: tuple[PrivacyCrossing, ...] = (
    PrivacyCrossing(
        ("selection.sampler", _SAMPLING),
        lambda e: e.selection.sampler not in SAMPLINGS[e.privacy.sampling].samplers,
        "selection.sampler '{e.selection.sampler}'",
        "ε would be claimed for a choice of devices that is another one",
        "use {f.private_samplers}",
    ),
    PrivacyCrossing(
        ("selection.over-selection", _SAMPLING),
        lambda e: e.selection.over_selection > 1 and e.privacy.sampling != NONE_ASSUMED,
        "selection.over-selection {e.selection.over_selection:g}",
        "where only the first to answer count, who counts depends on all others, and sampling hides nobody",
        "use 1, or privacy.sampling none-assumed",
    ),
    PrivacyCrossing(
        ("fleet.availability", _SAMPLING),
        lambda e: e.fleet.availability != "always" and e.privacy.sampling == FIXED_SIZE,
        "fleet.availability '{e.fleet.availability}'",
        "those that happen to be there are asked more often than is claimed",
        "use privacy.sampling poisson",
    ),
    PrivacyCrossing(
        ("policy.name", _SAMPLING),
        lambda e: e.policy.name != "every-round" and e.privacy.sampling == FIXED_SIZE,
        "policy.name '{e.policy.name}'",
        "the others are asked more often than is claimed",
        "use privacy.sampling poisson",
    ),
    PrivacyCrossing(
        ("policy.min-separation-seconds", _SAMPLING),
        lambda e: e.policy.min_separation_seconds > 0 and e.privacy.sampling == FIXED_SIZE,
        "policy.min-separation-seconds {e.policy.min_separation_seconds:g}",
        "the others are asked more often than is claimed",
        "use privacy.sampling poisson",
    ),
    PrivacyCrossing(
        ("train.cohort", _MODE),
        lambda e: e.train.cohort < 2,
        "train.cohort {e.train.cohort}",
        "one client alone has nobody to hide among",
        "use at least 2, and hundreds for an ε that means something",
    ),
    PrivacyCrossing(
        ("clock.mode", _MODE),
        lambda e: e.clock.mode == "asynchronous",
        "clock.mode '{e.clock.mode}'",
        "late updates weigh less, and who is in a buffer depends on all others",
        "use synchronous",
    ),
    PrivacyCrossing(
        ("server.aggregation", _MODE),
        lambda e: e.server.aggregation != "mean",
        "server.aggregation '{e.server.aggregation}'",
        "only of a sum is it known how far one client moves it",
        "use mean",
    ),
    PrivacyCrossing(
        ("server.algorithm", _MODE),
        lambda e: e.server.build().per_step or e.server.build().device is not None,
        "server.algorithm '{e.server.algorithm}'",
        "it needs a second sum, or what clients keep of exact packets, which nobody has charged",
        "use fedavg, fedavgm, fedprox or fedadam",
    ),
    PrivacyCrossing(
        ("upload.memory", _MODE),
        lambda e: e.upload.memory != NONE,
        "upload.memory '{e.upload.memory}'",
        "what clipping takes off comes back in the next update, and is taken off again",
        "use none",
    ),
    *(
        PrivacyCrossing(
            (f"upload.{name}", _MODE),
            lambda e, name=name: getattr(e.upload, name.replace("-", "_")) > 0,  # type: ignore[misc]
            f"upload.{name} {{e.upload.{name.replace('-', '_')}}}",
            "the step that the server publishes would follow from the sizes of packets, which nobody has charged",
            "use 0",
        )
        for name in ("target-ratio", "budget-bytes")
    ),
    PrivacyCrossing(
        ("evaluation.device-test-fraction", _MODE),
        lambda e: e.evaluation.device_test_fraction > 0,
        "evaluation.device-test-fraction {e.evaluation.device_test_fraction:g}",
        "accuracies that devices report tell of their examples, and nobody has charged them",
        "use 0",
    ),
    PrivacyCrossing(
        ("output.tuning-origin", _MODE),
        lambda e: e.output.tuning_origin == "devices-agreed" and bool(e.output.tuning_data),
        "output.tuning-origin '{e.output.tuning_origin}'",
        "artifacts would be tuned on devices' own examples, without noise",
        "use public examples",
    ),
)
