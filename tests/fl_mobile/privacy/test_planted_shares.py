"""Bugs of noise that is added in shares under masks: every one of them turns a check red."""

from __future__ import annotations

import types

import pytest

from fl_mobile.client import answer, masked
from fl_mobile.privacy import accounting, claim, shares
from fl_mobile.protocol import terms as protocol
from fl_mobile.secure_sum import client as secure_client
from fl_mobile.secure_sum import masks, plan
from fl_mobile.server import publish
from tests.fl_mobile.privacy.planted import turns_red
from tests.fl_mobile.privacy.share_checks import SHARE_CHECKS

BUGS: dict[str, tuple[types.ModuleType, str, str]] = {
    # the noise
    "shares are too small after drop-outs": (shares, "self.sigma / math.sqrt(least)", "self.sigma / math.sqrt(6)"),
    "shares are half as large": (shares, "self.sigma / math.sqrt(least)", "self.sigma / (2 * math.sqrt(least))"),
    "some clients add no noise": (masked, "    if noise:\n", "    if noise and client.client % 3:\n"),
    "nobody adds noise": (masked, "    if noise:\n", "    if False:\n"),
    "noise on half of the numbers": (shares, "add_gaussian(noised, ", "add_gaussian(noised[::2], "),
    "one draw for all numbers": (
        shares,
        "    add_gaussian(noised, noise.share(least), stream)",
        "    one = np.zeros(1, np.int64)\n    add_gaussian(one, noise.share(least), stream)\n    noised += one[0]",
    ),
    "noise that everybody knows": (shares, "derive(secret, ", "derive(bytes(32), "),
    "the same noise in every sum": (shares, "noise.share(least), roster, numbers", "noise.share(least), numbers"),
    "the same noise for two updates": (shares, "roster, numbers.tobytes()", "roster"),
    "what rounding adds is not in the noise": (shares, "math.sqrt(self.longest)", "self.grid * 0.9"),
    # the clip
    "no clip": (shares, "self.grid / max(self.clip_norm, norm)", "self.grid / self.clip_norm"),
    "clip after noise": (
        answer,
        "pack(terms.shares.on_grid(numbers, rng))",
        "pack((numbers / terms.shares.step).astype(np.int64))",
    ),
    "rounding may make a vector as long as it likes": (
        shares,
        "            if int(np.dot(whole, whole)) <= self.longest:\n                return whole",
        "            return whole",
    ),
    "everything is scaled to the norm": (
        shares,
        "self.grid / max(self.clip_norm, norm)",
        "self.grid / max(1e-9, norm)",
    ),
    "rounding to the nearest": (shares, "rng.random(len(steps))", "0.5"),
    "not numbers are sent": (shares, "if not math.isfinite(norm):", "if False:"),
    # the modulus and the grid
    "a modulus for a single client": (shares, "        n = self.group\n", "        n = 1\n"),
    "a modulus without the noise": (shares, " + n * self.share(self.least) ** 2", ""),
    "a grid so coarse that sums are no discrete Gaussian": (
        shares,
        "max(LEAST_SIGMA, math.ceil(self.sigma / math.sqrt(least) * (1 + 2.0**-40)))",
        "1",
    ),
    # the claim
    "what a sum of discrete Gaussians costs is not charged": (accounting, "+ claim.beside * t", ""),
    "answers are not added up": (accounting, "[t * x for x in one]", "[x for x in one]"),
    "the divergence is halved": (accounting, "order / (2 * claim", "order / (4 * claim"),
    "noise in shares is accounted as that of the server": (accounting, "    elif claim.shares:", "    elif False:"),
    "noise in shares is amplified": (claim, "(self.local or self.shares) and", "self.local and"),
    "the cost of a sum is that of one number": (shares, "return 2 * numbers * 10", "return 2 * 10"),
    # who reads what
    "shares without masks": (publish, "if agreement.share_noise and not agreement.masks:", "if False:"),
    "a step that is not that of the noise": (publish, "    if noise and not (", "    if False and ("),
    "real clients are told of no noise": (protocol, "if agreement.share_noise:", "if False:"),
    "real clients may be told of masks that others do not see": (
        protocol,
        '(got["format"] == MASKED_FORMAT) != (got["masks"] is not None) or (',
        "False and (",
    ),
    "clients unmask whatever they are asked": (secure_client, "if len(summed) < self.terms.least:", "if False:"),
    "a sum of fewer is enough": (plan, "math.ceil((1 - self.dropouts) * clients - 1e-9)", "3"),
    "masks are used again": (masks, "stream = Keystream(key)", "stream = Keystream(bytes(32))"),
    "masks cover nothing": (
        secure_client,
        'add_masks(masked, [*pairs, (own_key(self._secrets["own"], roster), 1)])',
        "pass",
    ),
}


def test_nothing_is_red_as_it_is() -> None:
    for check in SHARE_CHECKS:
        check()


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_turns_a_check_red(bug: str) -> None:
    assert turns_red(*BUGS[bug], checks=SHARE_CHECKS), f"nobody saw: {bug}"
