"""Privacy bugs that others have shipped, and some that nobody has yet: every one of them turns a check red."""

from __future__ import annotations

import sys
import types

import pytest

from fl_mobile.client import answer
from fl_mobile.privacy import accounting, claim, clipped_sum, keys, ledger, local, rules
from fl_mobile.protocol import terms
from fl_mobile.server import checkpoint, fold, publish, step
from tests.fl_mobile.privacy.checks import CHECKS
from tests.fl_mobile.privacy.local_checks import LOCAL_CHECKS
from tests.fl_mobile.privacy.planted import turns_red

RELEASE = sys.modules["fl_mobile.privacy.release"]
"""The package exports its function under the same name."""

BUGS: dict[str, tuple[types.ModuleType, str, str]] = {
    # the sum
    "no clipping": (clipped_sum, "if norm <= self.clip_norm else UNIT * _MARGIN / norm", "if norm else 0"),
    "clipped to twice the norm": (clipped_sum, "UNIT * _MARGIN / norm", "UNIT * 2 / norm"),
    "clipped by the largest value, not the length": (
        clipped_sum,
        "norm = global_norm({path: delta[path] for path in self.spec})",
        "norm = max(float(abs(v).max()) for v in delta.values())",
    ),
    "clipped tensor by tensor": (
        clipped_sum,
        "            add_toward_zero(values.reshape(-1), delta[path].reshape(-1), weight * steps)",
        "            norm = global_norm({path: delta[path]})\n"
        "            steps = UNIT / max(norm, self.clip_norm)\n"
        "            add_toward_zero(values.reshape(-1), delta[path].reshape(-1), weight * steps)",
    ),
    "everything scaled to the norm, small updates too": (
        clipped_sum,
        "steps = UNIT / self.clip_norm if norm <= self.clip_norm else",
        "steps =",
    ),
    "weight as sent": (fold, "weight, steps = sign * one.receipt.weight,", "weight, steps = one.header.num_examples,"),
    "what is taken out is put in": (
        clipped_sum,
        "delta[path].reshape(-1), weight * steps)",
        "delta[path].reshape(-1), steps)",
    ),
    "the count forgets what is taken out": (
        clipped_sum,
        "self.within += weight if norm <= self.clip_norm else -weight",
        "self.within += 1 if norm <= self.clip_norm else -1",
    ),
    "clip to a norm of the rules, not of the round": (
        step,
        "rules.privacy.rule(assignment.clip_norm)",
        "rules.privacy.rule(1.0)",
    ),
    # the noise
    "no noise": (RELEASE, "add_gaussian(noised.reshape(-1), rules.sigma, stream)", "pass"),
    "noise only where somebody sent something": (
        RELEASE,
        "        delta[path] = (noised * step)",
        "        noised[values == 0] = 0\n        delta[path] = (noised * step)",
    ),
    "noise on the first tensor only": (
        RELEASE,
        "        add_gaussian(noised.reshape(-1), rules.sigma, stream)",
        "        if not delta:\n            add_gaussian(noised.reshape(-1), rules.sigma, stream)",
    ),
    "one draw for a whole tensor": (
        RELEASE,
        "        add_gaussian(noised.reshape(-1), rules.sigma, stream)",
        "        one = np.zeros(1, np.int64)\n        add_gaussian(one, rules.sigma, stream)\n        noised += one[0]",
    ),
    "every tensor gets the same noise": (
        RELEASE,
        "        add_gaussian(noised.reshape(-1), rules.sigma, stream)",
        '        add_gaussian(noised.reshape(-1), rules.sigma, Keystream(derive(state.key, "noise", round_num)))',
    ),
    "clip after noise": (
        RELEASE,
        "        delta[path] = (noised * step)",
        "        noised = noised // max(1, int(abs(noised).max() // UNIT))\n        delta[path] = (noised * step)",
    ),
    "variance for standard deviation": (rules, "self.value_multiplier * UNIT", "self.value_multiplier**2 * UNIT"),
    "noise over the cohort's root": (
        rules,
        "self.value_multiplier * UNIT",
        "self.value_multiplier / self.cohort**0.5 * UNIT",
    ),
    "noise does not scale with the norm": (RELEASE, "step = total.clip_norm / UNIT", "step = 1.0 / UNIT"),
    "no noise in an empty round": (
        step,
        "    if rules.privacy is None:\n        return folded.total.result(), None",
        "    if rules.privacy is None:\n        return folded.total.result(), None\n"
        "    if not folded.accepted:\n        return None, state.privacy",
    ),
    "divided by who came": (
        RELEASE,
        "step = total.clip_norm / UNIT / rules.cohort",
        "step = total.clip_norm / UNIT / max(1, total.weight)",
    ),
    "an adaptive norm for free": (rules, "        if not self.quantile:\n", "        if True:\n"),
    "the count pays too much": (rules, "(2 * self.count_noise) ** -2) ** -0.5", "(self.count_noise) ** -2) ** -0.5"),
    "an adaptive norm of the exact count": (
        RELEASE,
        "    add_gaussian(count, math.ceil(2 * rules.count_noise * _FINE), stream)\n",
        "",
    ),
    "half the noise on the count": (
        RELEASE,
        "math.ceil(2 * rules.count_noise * _FINE)",
        "math.ceil(rules.count_noise * _FINE)",
    ),
    "the sign of adaptive clipping": (RELEASE, "math.exp(-rules.clip_rate", "math.exp(rules.clip_rate"),
    "adaptive clipping of a fixed norm": (RELEASE, "if rules.quantile else after", "if True else after"),
    # keys
    "noise redrawn after a crash": (
        RELEASE,
        'derive(state.key, "noise", round_num, _digest(total))',
        '__import__("os").urandom(32)',
    ),
    "the same noise on two sums": (RELEASE, ", round_num, _digest(total))", ", round_num)"),
    "the same noise every round": (RELEASE, 'key=derive(state.key, "next")', "key=state.key"),
    "the round is not in the key": (RELEASE, '"noise", round_num, ', '"noise", '),
    "noise from the experiment's seed": (
        rules,
        "self.first_key or os.urandom(KEY_BYTES)",
        "self.first_key or key_of_seed(0)",
    ),
    "a key of one byte": (rules, "os.urandom(KEY_BYTES)", "os.urandom(1) * KEY_BYTES"),
    "the key is one for all seeds": (
        rules,
        'derive(seed.to_bytes(8, "big", signed=True), "reproducible")',
        'derive(b"", "reproducible")',
    ),
    "purposes share a key": (keys, "info=info", 'info=b"fl-mobile"'),
    "the cohort follows from what all know": (
        rules,
        'int.from_bytes(derive(state.key, "cohort")[:7], "big")',
        "state.charged",
    ),
    "all may read the key": (checkpoint, "secret=state.privacy is not None or", "secret=False and"),
    # the ledger
    "a release is not charged": (RELEASE, "charged=state.charged + 1", "charged=state.charged"),
    "rounds and releases may differ": (checkpoint, " or state.charged != round_num", ""),
    "the key is lost in a checkpoint": (checkpoint, '_privacy(meta.get("privacy"), int(meta["round"]))', "None"),
    "replace-one as if one were removed": (
        claim,
        "2 if self.local or self.sampling == FIXED_SIZE else 1",
        "2 if self.local else 1",
    ),
    "sampling twice": (accounting, "sampling_prob=claim.rate", "sampling_prob=claim.rate**2"),
    "only one round is booked": (accounting, "one.self_compose(t)", "one"),
    "amplified without an assumption": (
        accounting,
        "        best = plain\n",
        "        best = _pld(claim, counts, interval)\n",
    ),
    "rounds add up like one": (accounting, "z / math.sqrt(t)", "z"),
    "booked as the round before": (ledger, "return self.spent[at]", "return self.spent[max(0, at - 1)]"),
    "δ of one over the population": (claim, "0 < self.delta < 1 / self.population", "0 < self.delta < 1"),
    "a cohort of one": (claim, "2 - self.local <= self.cohort", "1 <= self.cohort"),
    "any little noise": (claim, "self.noise_multiplier >= LEAST_MULTIPLIER", "self.noise_multiplier > 0"),
    # what else leaves
    "packets carry the loss": (
        answer,
        "(min(update.num_examples, 1), math.nan) if",
        "(min(update.num_examples, 1), loss) if",
    ),
    "packets carry the examples": (
        answer,
        "(min(update.num_examples, 1), math.nan) if",
        "(update.num_examples, math.nan) if",
    ),
    "terms forget to be bare": (answer, "bare=agreement.bare_packets", "bare=False"),
    "statistics travel": (
        publish,
        "if statistics:\n        raise ConfigError(",
        "if False:\n        raise ConfigError(",
    ),
    "control variates travel": (
        publish,
        "if agreement.algorithm.per_step or agreement.algorithm.variate:",
        "if False:",
    ),
    "what a codec left out is sent later": (publish, 'if agreement.memory != "none" or', "if"),
    "clipped twice, to other norms": (step, "or believed.clip_norm or", "or"),
    "late updates count": (step, " or believed.max_staleness):", "):"),
    "weighted by examples": (step, 'believed.weighting != "uniform" or ', ""),
    "clients are told another norm": (
        publish,
        "clip_norm = state.privacy.clip_norm if state.privacy else clip_norm",
        "pass",
    ),
}


LOCAL_BUGS: dict[str, tuple[types.ModuleType, str, str]] = {
    "clients do not clip": (local, "if norm <= clip_norm * _SHORT else UNIT * _SHORT / norm", "if norm else 0"),
    "clients clip to twice the norm": (local, "UNIT * _SHORT / norm", "UNIT * 2 / norm"),
    "clients scale small updates up": (local, "steps = UNIT / clip_norm if norm <= clip_norm * _SHORT else", "steps ="),
    "clients add no noise": (local, "    add_gaussian(whole, noise.sigma, stream)\n", ""),
    "clients add noise only where something is": (
        local,
        "    add_gaussian(whole, noise.sigma, stream)\n",
        "    there = whole != 0\n    add_gaussian(whole, noise.sigma, stream)\n    whole *= there\n",
    ),
    "clients add noise to the first tensor only": (
        local,
        "    add_gaussian(whole, noise.sigma, stream)\n",
        "    add_gaussian(whole[: next(iter(update.values())).size], noise.sigma, stream)\n",
    ),
    "clients draw once": (
        local,
        "    add_gaussian(whole, noise.sigma, stream)\n",
        "    one = np.zeros(1, np.int64)\n    add_gaussian(one, noise.sigma, stream)\n    whole += one\n",
    ),
    "clients add the noise before the clip": (
        local,
        "private, at, out = (whole * (noise",
        "whole = _on_grid(whole / UNIT, 1.0)\n    private, at, out = (whole * (noise",
    ),
    "client noise of half a norm": (local, "self.noise_multiplier * UNIT", "self.noise_multiplier / 2 * UNIT"),
    "client noise does not scale with the norm": (local, "noise.clip_norm / UNIT", "1.0 / UNIT"),
    "client noise is redrawn when a packet is made again": (
        local,
        "derive(secret,",
        '__import__("os").urandom(32) or (',
    ),
    "client noise is the same for two updates": (local, "run, round_num, digest)", "run, round_num)"),
    "client noise is the same in two rounds": (local, "run, round_num, digest)", "run, digest)"),
    "client noise is the same in two runs": (local, "run, round_num, digest)", "round_num, digest)"),
    "client noise is known to all": (local, "derive(secret, ", "derive(bytes(32), "),
    "terms forget the noise": (answer, "noise=agreement.local_noise,", "noise=None,"),
    "two clipped updates are one norm apart": (
        claim,
        "2 if self.local or self.sampling == FIXED_SIZE else 1",
        "2 if self.sampling == FIXED_SIZE else 1",
    ),
    "local noise is amplified": (
        claim,
        "if (self.local or self.shares) and self.sampling != NONE_ASSUMED:",
        "if False:",
    ),
    "local noise with a memory": (
        publish,
        "if rules.privacy or agreement.local_noise or agreement.share_noise:",
        "if rules.privacy:",
    ),
    "a client that knows of no noise reads its terms": (
        terms,
        "NOISED_FORMAT if agreement.local_noise else FORMAT",
        "FORMAT",
    ),
}


def test_nothing_is_red_as_it_is() -> None:
    for check in (*CHECKS, *LOCAL_CHECKS):
        check()


@pytest.mark.parametrize("bug", [*BUGS, *LOCAL_BUGS])
def test_a_planted_bug_turns_a_check_red(bug: str) -> None:
    checks = CHECKS if bug in BUGS else LOCAL_CHECKS
    assert turns_red(*(BUGS | LOCAL_BUGS)[bug], checks=checks), f"nobody saw: {bug}"


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 30
