"""What cannot meet [masks], and why: all that needs to see single updates, or cannot be added under masks."""

from __future__ import annotations

from device_sim.datasets.scaling import FEDERATED
from device_sim.experiment.class_weights import BALANCED
from device_sim.experiment.privacy import CENTRAL, LOCAL
from device_sim.experiment.privacy_crossings import SectionCrossing
from device_sim.fleet.selection.samplers import SAMPLERS
from fl_mobile.aggregation import AGGREGATORS
from fl_mobile.client.private import NONE as NOTHING
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.choice import AUTO
from fl_mobile.codecs.summed import can_be_summed

_GROUP = "masks.group"

MASKS_CROSSINGS: tuple[SectionCrossing, ...] = (
    SectionCrossing(
        keys=("upload.codec", _GROUP),
        asked=lambda e: e.upload.codec != AUTO and not can_be_summed(parse_codec(e.upload.codec)),
        told="upload.codec '{e.upload.codec}'",
        why="only numbers of a fixed width add up before anybody decodes them, and it sends none",
        instead="use sketch, e.g. sketch:k=2048, or linear, e.g. linear:clip=0.01,bits=4",
    ),
    SectionCrossing(
        keys=("train.cohort", _GROUP),
        asked=lambda e: e.train.cohort < 3,
        told="train.cohort {e.train.cohort}",
        why="in the sum of two each device can read the other's update",
        instead="use at least 3, and tens for a sum that hides anybody",
    ),
    SectionCrossing(
        keys=("clock.mode", _GROUP),
        asked=lambda e: e.clock.mode == "asynchronous",
        told="clock.mode '{e.clock.mode}'",
        why="devices that mask each other's updates must answer in the same round",
        instead="use synchronous",
    ),
    SectionCrossing(
        keys=("server.aggregation", _GROUP),
        asked=lambda e: AGGREGATORS[e.server.aggregation].single_updates or not AGGREGATORS[e.server.aggregation].mean,
        told="server.aggregation '{e.server.aggregation}'",
        why="it looks at single updates, and the server sees none",
        instead="use mean",
    ),
    SectionCrossing(
        keys=("server.algorithm", _GROUP),
        asked=lambda e: e.server.build().per_step or e.server.build().variate is not None,
        told="server.algorithm '{e.server.algorithm}'",
        why="it needs a second sum, or what the server decodes of single packets",
        instead="use fedavg, fedavgm, fedprox or fedadam",
    ),
    SectionCrossing(
        keys=("upload.memory", _GROUP),
        asked=lambda e: e.upload.memory != NOTHING,
        told="upload.memory '{e.upload.memory}'",
        why="it is derived for updates that the server decodes one by one",
        instead="use none",
    ),
    SectionCrossing(
        keys=("selection.sampler", _GROUP),
        asked=lambda e: SAMPLERS[e.selection.sampler].remembers,
        told="selection.sampler '{e.selection.sampler}'",
        why="it chooses devices by the losses they report, and under masks they report none",
        instead="use uniform, poisson or stratified",
    ),
    SectionCrossing(
        keys=("selection.over-selection", _GROUP),
        asked=lambda e: e.selection.over_selection > 1,
        told="selection.over-selection {e.selection.over_selection:g}",
        why="those that are left out would have to be unmasked as if they had left",
        instead="use 1: all that answer in time are in the sum",
    ),
    SectionCrossing(
        keys=("policy.name", _GROUP),
        asked=lambda e: e.policy.asks_norms,
        told="policy.name '{e.policy.name}'",
        why="whether a device sends would tell how long its update is, which the sum is to hide",
        instead="use every-round",
    ),
    SectionCrossing(
        keys=("attack.name", _GROUP),
        asked=lambda e: e.attack.name == "garbage",
        told="attack.name '{e.attack.name}'",
        why="a packet is a part of a sum here, and one that cannot be read has left it",
        instead="use an attack on updates, such as sign-flip",
    ),
    SectionCrossing(
        keys=("train.class-weights", _GROUP),
        asked=lambda e: e.train.class_weights == BALANCED,
        told="train.class-weights '{e.train.class_weights}'",
        why="counts of a device's classes would go to the server without a mask",
        instead="give numbers that anyone may know",
    ),
    SectionCrossing(
        keys=("data.words", _GROUP),
        asked=lambda e: e.data.words > 0,
        told="data.words {e.data.words}",
        why="counts of a device's words would go to the server without a mask",
        instead="use 0, which takes the whole list of data.vocabulary",
    ),
    SectionCrossing(
        keys=("data.standardize", _GROUP),
        asked=lambda e: e.data.standardize == FEDERATED,
        told="data.standardize '{e.data.standardize}'",
        why="sums of a device's examples would go to the server without a mask",
        instead="use public with data.scaling, or none",
    ),
    SectionCrossing(
        keys=("evaluation.device-test-fraction", _GROUP),
        asked=lambda e: e.evaluation.device_test_fraction > 0,
        told="evaluation.device-test-fraction {e.evaluation.device_test_fraction:g}",
        why="accuracies of single devices would stand beside a sum that hides them",
        instead="use 0",
    ),
    SectionCrossing(
        keys=("privacy.mode", _GROUP),
        asked=lambda e: e.privacy.mode in (CENTRAL, LOCAL),
        told="privacy.mode '{e.privacy.mode}'",
        why="a server that adds noise clips single updates first, and it sees none; a device's own noise needs no mask",
        instead="use none, or set masks.group to 0",
    ),
)
"""Looked through from the top, like `CROSSINGS`."""
