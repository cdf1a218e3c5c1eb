"""What the rounds of a private run have spent, and the words for it in summary, report and model card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from device_sim.experiment.experiment import Experiment
from device_sim.experiment.privacy import DISTRIBUTED, LOCAL
from device_sim.federation.federation import Federation
from device_sim.rounds.memory import FleetMemory
from device_sim.run.folder import RunFolder
from device_sim.run.log import Round
from fl_mobile.errors import ConfigError
from fl_mobile.privacy.keys import KEY_BYTES
from fl_mobile.privacy.rules import key_of_seed
from fl_mobile.records import ServerState
from fl_mobile.server import checkpoint

FORECAST = "The noise follows from the seed, which anybody can repeat: a forecast of a private run, and no guarantee"
NO_PRIVACY = "No differential privacy: nothing bounds what the weights reveal of one person's examples"


def begin(federation: Federation, folder: RunFolder, state: ServerState, memory: FleetMemory) -> ServerState:
    """Returns the state before round 0; under privacy its key is safe on disk before anything is drawn from it.

    Where devices add the noise, the key is theirs: it lies in ``memory``, and the server's state holds none.

    Raises:
        ConfigError: The first round would spend more than there is.
    """
    rules, ledger = federation.rules.privacy, federation.ledger
    if (federation.local_noise or federation.share_noise) and not memory.secret:
        keys = federation.experiment
        memory.secret = key_of_seed(keys.seed) if keys.privacy.reproducible else os.urandom(KEY_BYTES)
        checkpoint.save(folder.checkpoint, state, memory.as_json())
    if rules is None or ledger is None or state.privacy is not None:
        return state
    before = federation.experiment.sums_before
    most, first = federation.experiment.privacy.max_epsilon, ledger.after(1 + before).epsilon
    if most and first > most:
        raise ConfigError(
            f"privacy.max-epsilon is {most:g}, and the first round alone spends {first:.4g}. Raise it, or"
            " privacy.noise-multiplier"
        )
    state = replace(state, privacy=rules.start())
    checkpoint.save(folder.checkpoint, state, memory.as_json())
    return state


def spent_by(federation: Federation, state: ServerState, memory: FleetMemory) -> dict[str, float]:
    """Returns the ledger's row of the release that made ``state``; empty without privacy.

    Of devices' own noise it is that of the device that answered most often, ``answers`` times; where the server cannot
    count what devices made, in every round.

    ``epsilon``, ``epsilon_rdp`` where Rényi accounting gives one too, ``epsilon_unamplified``, ``epsilon_next`` after
    one more round, ``clip_norm`` of the next one.
    """
    if federation.ledger is None:
        return {}
    if federation.experiment.privacy.of_devices:
        charged = memory.answers.largest or state.round_num
    else:
        charged = federation.experiment.sums_before + (state.privacy.charged if state.privacy else 0)
    spent = federation.ledger.after(charged)
    row = {"epsilon": spent.epsilon, "epsilon_unamplified": spent.epsilon_unamplified}
    if spent.epsilon_rdp is not None:
        row["epsilon_rdp"] = spent.epsilon_rdp
    if state.round_num < federation.experiment.train.rounds:
        row["epsilon_next"] = federation.ledger.after(charged + 1).epsilon
    if state.privacy is None:
        return row | {"clip_norm": federation.experiment.privacy.clip_norm, "answers": charged}
    return row | {"clip_norm": state.privacy.clip_norm}


def budget_spent(experiment: Experiment, rounds: Sequence[Round]) -> str:
    """Returns why no further round may be released, or an empty string."""
    most = experiment.privacy.max_epsilon
    if not experiment.privacy.on or not most or not rounds:
        return ""
    coming = rounds[-1].privacy.get("epsilon_next", 0.0)
    return f"another round would spend ε = {coming:.4g} of privacy.max-epsilon {most:g}" if coming > most else ""


def privacy_of(federation: Federation, rounds: Sequence[Round]) -> dict[str, Any] | None:
    """Returns what ``summary.json`` says of privacy: never an ε without what it is about.

    ``rounds`` counts all that was booked, with the ``sums_before`` round 1.
    """
    claim, ledger = federation.claim, federation.ledger
    if claim is None or ledger is None:
        return None
    before = federation.experiment.sums_before
    charged = int(rounds[-1].privacy.get("answers", len(rounds) + before)) if rounds else before
    return {
        "mode": federation.experiment.privacy.mode,
        "unit": "client: all examples of one device, in all rounds",
        **asdict(ledger.after(charged)),
        "rounds": charged,
        "sums_before": before,
        **asdict(claim),
        "relation": claim.relation,
        "assumes": claim.assumes,
        "accountant": ledger.method,
        "clip_norm": rounds[-1].privacy["clip_norm"] if rounds else federation.experiment.privacy.clip_norm,
        "reproducible": federation.experiment.privacy.reproducible,
    }


def privacy_told(privacy: Mapping[str, Any] | None) -> str:
    """Returns one sentence, without its full stop, from what `privacy_of` returned."""
    if privacy is None:
        return NO_PRIVACY
    beside = f", {privacy['epsilon_rdp']:.4g} by Rényi accounting" if privacy["epsilon_rdp"] is not None else ""
    if privacy["mode"] in (LOCAL, DISTRIBUTED):
        told = (
            f"Differential privacy of clients ({privacy['mode']}): ε = {privacy['epsilon']:.4g} at"
            f" δ = {privacy['delta']:.3g} for the client that answered most often, in"
            f" {privacy['rounds']} rounds, by {privacy['accountant']}{beside};"
            f" between worlds with {privacy['relation']}; noise multiplier {privacy['noise_multiplier']:.4g}; assumes"
            f" {privacy['assumes']}"
        )
        return f"{told}. {FORECAST}" if privacy["reproducible"] else told
    before = privacy.get("sums_before", 0)
    released = f"{privacy['rounds'] - before} rounds{' and the statistics before them' if before else ''}"
    told = (
        f"Differential privacy of clients ({privacy['mode']}): ε = {privacy['epsilon']:.4g} at"
        f" δ = {privacy['delta']:.3g} after {released}, by {privacy['accountant']}{beside}; between"
        f" worlds with {privacy['relation']}; noise multiplier {privacy['noise_multiplier']:.4g}; about"
        f" {privacy['cohort']} of {privacy['population']} clients a round; assumes {privacy['sampling']} sampling:"
        f" {privacy['assumes']}. Without amplification by sampling ε = {privacy['epsilon_unamplified']:.4g}"
    )
    return f"{told}. {FORECAST}" if privacy["reproducible"] else told
