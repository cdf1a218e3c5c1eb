"""Arms: the trials of ``fl-mobile sweep CODEC…``, a grid over one key that is written on the command line.

An *arm* is a codec, with further keys after semicolons: ``ecsq``, ``ecsq:step=16``,
``ecsq:rounding=rdo,step=1;upload.memory=error-feedback``. The first arm is the one the others are compared with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from device_sim.experiment.experiment import Experiment, experiment_hash
from device_sim.experiment.toml import parse_value
from device_sim.sweep.plan import Trial, experiments_of
from fl_mobile.errors import ConfigError


def arm_trial(arm: str) -> Trial:
    """Returns the trial an arm stands for.

    >>> dict(arm_trial("ecsq:step=4;upload.target-ratio=100").params)
    {'upload.codec': 'ecsq:step=4', 'upload.target-ratio': 100}
    """
    codec, *rest = (part.strip() for part in arm.split(";"))
    if not codec or not all(re.match(r"[\w.-]+=", part) for part in rest):
        raise ConfigError(f"arm '{arm}': expected CODEC or CODEC;key=value;…, e.g. ecsq;upload.memory=cafe")
    more = (part.partition("=") for part in rest)
    return Trial(arm, {"upload.codec": codec, **{key: parse_value(text.strip()) for key, _, text in more}})


def arm_trials(base: Experiment, arms: Sequence[str], seeds: int) -> list[Trial]:
    """Returns the trials of all arms.

    Raises:
        ConfigError: An arm that is no valid experiment, or two arms that are the same one.
    """
    trials = [arm_trial(arm) for arm in arms]
    if not trials or seeds < 1:
        raise ConfigError("a sweep needs at least one codec and one seed")
    hashes = {experiment_hash(experiments_of(base, trial, [0])[0]) for trial in trials}
    if len(hashes) < len(trials):
        raise ConfigError("two arms of the sweep are the same experiment; give each once")
    return trials
