"""What a private federation claims, how its server keeps to it, and what would break it."""

from __future__ import annotations

import bisect
from dataclasses import replace

import numpy as np

from device_sim.client_data.data import DeviceData
from device_sim.experiment.experiment import Experiment
from device_sim.fleet.availability.gate import Gate
from device_sim.fleet.ledger import Ledger as DeviceLedger
from fl_mobile.codecs import Codec
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError
from fl_mobile.privacy import Claim, PrivacyRules
from fl_mobile.privacy.claim import FIXED_SIZE, default_delta
from fl_mobile.privacy.ledger import Ledger, solved
from fl_mobile.privacy.local import LocalNoise
from fl_mobile.privacy.rules import LEAST_MULTIPLIER, key_of_seed
from fl_mobile.privacy.shares import ShareNoise, beside
from fl_mobile.secure_sum.plan import MaskPlan
from fl_mobile.tensors import Spec


def claim_of(
    experiment: Experiment, population: int, upload: Codec | None = None, masks: MaskPlan | None = None
) -> Claim:
    """Returns what ε of this federation is about; a target is solved for the noise it needs.

    Args:
        upload: Codec of updates, and
        masks: how they are added, where devices add noise in shares.

    Raises:
        ConfigError: δ is too large, the cohort too small, or no noise is enough.
    """
    keys = experiment.privacy
    claim = _unsolved(experiment, population)
    if masks and isinstance(upload, Sketch):
        claim = replace(claim, beside=beside(upload.k, masks.group))
    return solved(claim, experiment.private_releases, keys.target_epsilon) if keys.target_epsilon else claim


def _unsolved(experiment: Experiment, population: int) -> Claim:
    """Returns the claim, with the least noise there may be in place of what a target would need."""
    keys = experiment.privacy
    return Claim(
        sampling=keys.assumed,
        population=population,
        cohort=experiment.train.cohort,
        noise_multiplier=keys.noise_multiplier or LEAST_MULTIPLIER,
        delta=keys.delta or default_delta(population),
        local=keys.local,
        shares=keys.distributed,
    )


def local_noise_of(experiment: Experiment, claim: Claim, ledger: Ledger) -> LocalNoise:
    """Returns what every client adds to its own update, and how often it answers; raises as `answers_of`."""
    return LocalNoise(experiment.privacy.clip_norm, claim.noise_multiplier, answers_of(experiment, ledger))


def share_noise_of(
    experiment: Experiment, claim: Claim, ledger: Ledger, upload: Codec, *, masks: MaskPlan
) -> ShareNoise:
    """Returns what every client adds a share of; raises as `answers_of`."""
    assert isinstance(upload, Sketch)
    return ShareNoise(
        clip_norm=experiment.privacy.clip_norm,
        noise_multiplier=claim.noise_multiplier,
        answers=answers_of(experiment, ledger),
        numbers=upload.k,
        group=masks.group,
        least=masks.least(masks.group),
    )


def answers_of(experiment: Experiment, ledger: Ledger) -> int:
    """Returns how often every client answers at most: as often as ``max-epsilon`` allows.

    Raises:
        ConfigError: It does not allow one answer.
    """
    most, rounds = experiment.privacy.max_epsilon, experiment.train.rounds
    if most:
        rounds = bisect.bisect_right(range(1, rounds + 1), most, key=lambda count: ledger.after(count).epsilon)
    if not rounds:
        raise ConfigError(
            f"privacy.max-epsilon is {most:g}, and one answer alone spends {ledger.after(1).epsilon:.4g}. Raise it, or"
            " privacy.noise-multiplier"
        )
    return rounds


def rules_of(experiment: Experiment, claim: Claim) -> PrivacyRules:
    """Returns how the server of this federation releases sums."""
    key = key_of_seed(experiment.seed) if experiment.privacy.reproducible else b""
    return experiment.privacy.rules(claim.noise_multiplier, claim.cohort, key)


def check_claim(experiment: Experiment, spec: Spec, data: DeviceData, gate: Gate) -> None:
    """Raises `ConfigError` if model or devices break what [privacy] claims; before round 1.

    Args:
        spec: The tensors that travel.
    """
    statistics = [path for path, tensor in spec.items() if not tensor.trainable]
    if statistics:
        raise ConfigError(
            f"privacy.mode '{experiment.privacy.mode}' cannot be used with this model: '{statistics[0]}' and"
            f" {len(statistics) - 1} more tensors are statistics of devices' examples, which noise would make useless."
            " Take a model without batch normalisation, or keep them on devices with personal.private batch-norm"
        )
    everybody = np.arange(data.population)
    able = (gate.refusals(DeviceLedger(), 0.0, everybody) == 0) & data.holds(everybody)
    if experiment.privacy.assumed == FIXED_SIZE and not able.all():
        raise ConfigError(
            f"privacy.sampling fixed-size needs devices that all can take part, and {np.count_nonzero(~able)} of"
            f" {data.population} cannot: the others would be asked more often than is claimed. Use poisson"
        )
    _unsolved(experiment, data.population)
