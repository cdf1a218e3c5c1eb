"""Masked sums of a federation: how its cohorts are cut, and which models cannot be added."""

from __future__ import annotations

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.masks import most_in_cohort
from fl_mobile.codecs import parse_codec
from fl_mobile.codecs.choice import AUTO
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.tensors import Spec


def masks_of(experiment: Experiment, spec: Spec) -> MaskPlan | None:
    """Returns how the cohorts of an experiment are cut into masked sums; None where there are none.

    Args:
        spec: The tensors that travel.

    Raises:
        ConfigError: Not all of them can be added under masks.
    """
    if not experiment.masks.on:
        return None
    if statistics := [path for path, tensor in spec.items() if not tensor.trainable]:
        raise ConfigError(
            f"masks.group cannot be used with this model: '{statistics[0]}' and {len(statistics) - 1} more tensors are"
            " statistics that travel as they are, and only coded numbers add up under masks. Take a model without"
            " batch normalisation, or keep them on devices with personal.private batch-norm"
        )
    return experiment.masks.plan(most_in_cohort(experiment.train.cohort, experiment.selection.sampler))


def moves_step(experiment: Experiment) -> bool:
    """Returns whether the step of sketch's fields follows from the last sum, where neither codec nor noise gives it."""
    text = experiment.upload.codec
    named = Sketch() if text == AUTO else parse_codec(text)
    free = isinstance(named, Sketch) and not named.step and not experiment.privacy.distributed
    return experiment.masks.on and free
