"""What must hold of noise that clients add in shares under masks, one function each; `test_planted` turns each red."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fl_mobile import wire
from fl_mobile.client import answer as client
from fl_mobile.client import masked
from fl_mobile.codecs.sketch import Sketch
from fl_mobile.errors import ConfigError, DivergedError, WireError
from fl_mobile.privacy import accounting, shares
from fl_mobile.privacy.claim import NONE_ASSUMED, POISSON, Claim
from fl_mobile.privacy.keys import Keystream, derive
from fl_mobile.privacy.shares import ShareNoise
from fl_mobile.protocol import terms as protocol
from fl_mobile.records import Assignment, FitPlan, ServerState, Update
from fl_mobile.secure_sum import MaskPlan, crypto
from fl_mobile.secure_sum.masks import unpack_values
from fl_mobile.server import publish
from fl_mobile.server.fold import Fold
from fl_mobile.server.masked import MaskedRound
from fl_mobile.server.step import ServerRules
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Decoded
from tests.fl_mobile.privacy.checks import AGREEMENT, SPEC, update
from tests.fl_mobile.samples import philox

PLAN = MaskPlan(group=6, dropouts=0.34)
NOISE = ShareNoise(clip_norm=0.5, noise_multiplier=2.0, answers=9, numbers=2048, group=6, least=4)
CODEC = NOISE.fields(Sketch(2048, seed=5))
SHARED = replace(AGREEMENT, upload=CODEC, share_noise=NOISE, masks=PLAN)
LAYOUT = wire.Layout(SPEC, CODEC)
STATE = ServerState(0, AGREEMENT.initial, SPEC)
ZERO: Tensors = {path: np.zeros(t.shape, np.float32) for path, t in SPEC.items()}


def made(delta: Tensors, *, key: int = 3) -> np.ndarray:
    """Returns the whole numbers of an update before its noise, by way of all that a client does."""
    told = client.terms_of(SHARED, Assignment(0, FitPlan(), CODEC), Decoded(0, AGREEMENT.initial), {})
    packet = client.answer(told, Update(delta, 40, {"loss": 0.5}), key).packet
    header, _, payload = LAYOUT.open(packet)
    assert (header.num_examples, math.isnan(header.loss)) == (1, True)
    return CODEC.signed(CODEC.read_fields(payload, SPEC))


def secret_of(number: int) -> bytes:
    return hashlib.sha256(f"device {number}".encode()).digest()


def summed(
    deltas: Mapping[int, Tensors], *, gone: int = 0, round_num: int = 0, seen: list[Any] | None = None
) -> tuple[Fold, MaskedRound]:
    """Plays a masked round of clients, the last ``gone`` of which leave before they send; returns sum and server."""
    identities = {i: crypto.identity_of(derive(secret_of(i), "identity")) for i in deltas}
    server = MaskedRound(LAYOUT, round_num, PLAN, "run", identities, FitPlan())
    joined = {
        i: masked.join(
            invitation,
            layout=LAYOUT,
            round_num=round_num,
            run="run",
            client=i,
            identity=derive(secret_of(i), "identity"),
            identities=identities,
            random=Keystream(derive(secret_of(i), "keys", round_num)).take,
        )
        for i, invitation in server.invite(list(deltas)).items()
    }
    rosters = server.rosters({i: c.advertise() for i, c in joined.items()})
    inboxes = server.inboxes({i: joined[i].share(packet) for i, packet in rosters.items()})
    told = client.terms_of(SHARED, Assignment(round_num, FitPlan(), CODEC), Decoded(0, AGREEMENT.initial), {})
    stay, packets = list(deltas)[: len(deltas) - gone], {}
    for i in stay:
        packet = client.answer(told, Update(deltas[i], 40, {"loss": 0.5}), i).packet
        packets[i] = masked.masked_packet(
            joined[i], LAYOUT, inboxes[i], packet, noise=SHARED.share_noise, secret=secret_of(i)
        )
    if seen is not None:
        seen.extend((joined[i].terms, LAYOUT.open(packets[i])[2]) for i in stay)
    request = server.request(packets)
    return server.result({i: joined[i].unmask(packet) for i, packet in request.items()}), server


def noise_of(folded: Fold) -> np.ndarray:
    """Returns the whole numbers of a sum of updates of zeros: their noise."""
    return folded.total.total.astype(np.float64)  # type: ignore[attr-defined]


def a_sum_of_the_fewest_has_all_of_the_noise() -> None:
    assert PLAN.least(6) == 4
    for gone, least in ((0, 6), (2, 4)):
        left = noise_of(summed(dict.fromkeys(range(6), ZERO), gone=gone)[0])
        wanted = NOISE.sigma * math.sqrt(least / 4)
        for part in (left, left[:700], left[700:]):
            assert abs(part.std() / wanted - 1) < 5 / math.sqrt(2 * len(part)) + 0.02, (part.std(), wanted)
            assert abs(part.mean()) < 5 * wanted / math.sqrt(len(part))
        assert len(np.unique(left)) > 100
    assert NOISE.sigma >= 2.0 * math.sqrt(NOISE.longest) * (1 - 1e-12)
    for least in (1, 3, 4, 50):
        assert least * NOISE.share(least) ** 2 >= NOISE.sigma**2


def a_sum_of_fewer_is_read_by_nobody() -> None:
    try:
        folded, server = summed(dict.fromkeys(range(6), ZERO), gone=3)
    except WireError:
        return
    assert folded.accepted == 0
    assert not noise_of(folded).any()
    assert server.dropped["group"] == 3


def clients_unmask_no_sum_of_fewer() -> None:
    deltas = dict.fromkeys(range(6), ZERO)
    seen: list[Any] = []
    summed(deltas, seen=seen)
    assert {terms.least for terms, _ in seen} == {4}
    _asked_to_unmask(PLAN, 4)
    _refused(WireError, lambda: _asked_to_unmask(PLAN, 3))
    _asked_to_unmask(replace(PLAN, dropouts=0.0), 6)
    _refused(WireError, lambda: _asked_to_unmask(replace(PLAN, dropouts=0.0), 5))


def _asked_to_unmask(plan: MaskPlan, summed: int) -> None:
    """Has client 0 of six answer for a sum of the first so many."""
    identities = {i: crypto.identity_of(secret_of(i)) for i in range(6)}
    server = MaskedRound(LAYOUT, 0, plan, "run", identities, FitPlan())
    joined = {
        i: masked.join(
            invitation,
            layout=LAYOUT,
            round_num=0,
            run="run",
            client=i,
            identity=secret_of(i),
            identities=identities,
            random=Keystream(derive(secret_of(i), "keys", 0)).take,
        )
        for i, invitation in server.invite(list(range(6))).items()
    }
    rosters = server.rosters({i: c.advertise() for i, c in joined.items()})
    inboxes = server.inboxes({i: joined[i].share(packet) for i, packet in rosters.items()})
    joined[0].mask(inboxes[0], np.zeros(2048, np.int64))
    joined[0].unmask(np.arange(summed, dtype="<u4").tobytes())


def one_client_moves_the_sum_by_no_more_than_is_said() -> None:
    for norm in (0.0, 0.01, 0.3, 0.499, 0.5, 0.6, 50.0, 1e18):
        for key in range(4):
            whole = made(update(1, norm), key=key)
            assert sum(int(x) ** 2 for x in whole) <= NOISE.longest, norm
    spiky = {path: value.copy() for path, value in ZERO.items()}
    spiky["kernel"].reshape(-1)[:3] = 1e4
    assert sum(int(x) ** 2 for x in made(spiky)) <= NOISE.longest
    assert NOISE.longest <= 1.05 * NOISE.grid**2
    tiny = replace(NOISE, numbers=64, group=3, least=3)
    for key in range(200):
        whole = tiny.on_grid(philox(key).normal(size=64) * 9, philox(1000 + key))
        assert sum(int(x) ** 2 for x in whole) <= tiny.longest
    half = np.full(64, 0.5 * tiny.step)
    assert len({int(np.dot(w, w)) for w in (tiny.on_grid(half, philox(k)) for k in range(50))}) > 3


def small_updates_are_left_alone_and_rounding_is_even() -> None:
    delta = update(1, 0.3)
    numbers = CODEC.for_round(0).numbers(delta)
    mean = np.mean([made(delta, key=key) for key in range(40)], axis=0) * NOISE.step
    assert np.abs(mean - numbers).max() < 5 * NOISE.step / 2 / math.sqrt(40) + 1e-9
    far = np.mean([made(update(1, 7.0), key=key) for key in range(40)], axis=0) * NOISE.step
    assert abs(np.linalg.norm(far) / 0.5 - 1) < 0.05
    assert np.dot(far, numbers) > 0.98 * np.linalg.norm(far) * np.linalg.norm(numbers)


def the_sum_fits_its_fields() -> None:
    same = update(1, 0.5)
    folded, _ = summed(dict.fromkeys(range(6), same))
    mean = folded.total.result()
    assert mean is not None
    alone = CODEC.for_round(0).numbers(same)
    found = noise_of(folded) * NOISE.step / 6
    assert np.abs(found - alone).max() < 6 * NOISE.sigma * NOISE.step * math.sqrt(6 / 4) / 6
    for group, z in ((3, 0.3), (100, 1.0), (1000, 8.0)):
        noise = replace(NOISE, group=group, least=max(1, group // 2), noise_multiplier=z)
        spread = group * noise.grid / math.sqrt(noise.numbers) + 6 * noise.share(noise.least) * math.sqrt(group)
        assert 2 ** (noise.width - 1) > spread, (group, z)
        assert noise.share(noise.least) >= shares.LEAST_SIGMA


def noise_is_independent_of_all_other_noise() -> None:
    whole, roster = np.arange(-1024, 1024), bytes(32)

    def noise(**changes: Any) -> np.ndarray:
        given = {"least": 4, "secret": secret_of(0), "roster": roster} | changes
        values = given.pop("values", whole)
        return (shares.add_share(values, NOISE, given.pop("least"), **given) - values).astype(np.float64)

    base = noise()
    assert np.array_equal(base, noise())
    assert len(np.unique(base)) > 50
    others = (noise(secret=secret_of(1)), noise(roster=b"1" * 32), noise(values=whole + 1), noise(least=5))
    for other in others:
        along = float(np.dot(base, other)) / (np.linalg.norm(base) * np.linalg.norm(other))
        assert abs(along) < 5 / math.sqrt(len(base))


def masks_are_others_in_every_round_and_every_packet_looks_like_noise() -> None:
    delta = dict.fromkeys(range(6), update(1, 0.3))
    payloads = []
    for round_num in (0, 1):
        seen: list[Any] = []
        summed(delta, round_num=round_num, seen=seen)
        payloads += [unpack_values(payload, terms).astype(np.int64) for terms, payload in seen]
    modulus = 1 << CODEC.width
    for i, one in enumerate(payloads):
        assert abs(one.mean() / (modulus / 2) - 1) < 0.1, "fields of a masked packet are uniform"
        for other in payloads[:i]:
            assert len(np.unique((one - other) % modulus)) > 0.8 * min(len(one), modulus), "the same mask twice"


def not_numbers_do_not_leave() -> None:
    for bad in (math.nan, math.inf):
        numbers = np.zeros(2048)
        numbers[7] = bad
        _refused(DivergedError, lambda numbers=numbers: NOISE.on_grid(numbers, philox(1)))


def what_is_claimed_is_what_an_answer_costs() -> None:
    claim = Claim(NONE_ASSUMED, 1000, 100, 1.0, 1e-5, shares=True, beside=shares.beside(2048, 100))
    plain = Claim(NONE_ASSUMED, 1000, 100, 1.0, 1e-5)
    assert claim.distance == 1
    assert "zeros" in claim.relation
    assert "the server" in claim.assumes
    counts = [1, 3, 30]
    for (mine, rdp, without), (exact, by_rdp, _) in zip(
        accounting.curve(claim, counts), accounting.curve(plain, counts), strict=True
    ):
        assert rdp is None
        assert mine == without, "nothing is amplified"
        assert exact is not None
        assert by_rdp is not None
        assert exact <= mine <= 1.02 * by_rdp + 1e-9
    dear = accounting.curve(replace(claim, beside=0.01), counts)
    cheap = accounting.curve(replace(claim, beside=0.0), counts)
    for t, a, b in zip(counts, dear, cheap, strict=True):
        assert a[0] >= b[0] + 0.01 * t  # type: ignore[operator]
    assert 0 < claim.beside < 1e-50
    assert shares.beside(10**6, 1000) > claim.beside
    assert math.isclose(shares.beside(1, 2), 20 * math.exp(-(math.pi**2) * 16))
    _refused(ConfigError, lambda: Claim(POISSON, 100, 10, 1.0, 1e-3, shares=True))


def terms_that_do_not_fit_are_refused() -> None:
    def asked(**changes: Any) -> Any:
        return publish.assign(replace(SHARED, **changes), ServerRules(), STATE, FitPlan())

    assert asked()[1].upload == CODEC
    _refused(ConfigError, lambda: asked(masks=None))
    _refused(ConfigError, lambda: asked(bare_packets=False))
    _refused(ConfigError, lambda: asked(memory="error-feedback"))
    for upload in (replace(CODEC, width=CODEC.width - 1), replace(CODEC, step=CODEC.step * 2), Sketch(2048)):
        _refused(ConfigError, lambda upload=upload: asked(upload=upload))
    for wrong in ({"noise_multiplier": 0.1}, {"clip_norm": 0.0}, {"answers": 0}, {"least": 7}, {"numbers": 0}):
        _refused(ConfigError, lambda wrong=wrong: replace(NOISE, **wrong))


def real_clients_are_told_of_mask_and_noise() -> None:
    weights = protocol.initial_bytes(SHARED.initial)
    initial = protocol.Blob(hashlib.sha256(weights).hexdigest(), len(weights))
    told = protocol.terms_to_json(SHARED, SPEC, frozenset[str](), initial, {"learning_rate": 1.0})
    read = protocol.terms_from_json(told, weights).agreement
    assert (read.masks, read.share_noise, read.bare_packets) == (SHARED.masks, SHARED.share_noise, True)
    for wrong in ({"masks": None}, {"format": 1}, {"format": 2}):
        changed = json.dumps({**json.loads(told), **wrong}).encode()
        _refused(WireError, lambda changed=changed: protocol.terms_from_json(changed, weights))


def _refused(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError("was not refused")


SHARE_CHECKS: tuple[Callable[[], None], ...] = (
    what_is_claimed_is_what_an_answer_costs,
    terms_that_do_not_fit_are_refused,
    real_clients_are_told_of_mask_and_noise,
    one_client_moves_the_sum_by_no_more_than_is_said,
    noise_is_independent_of_all_other_noise,
    not_numbers_do_not_leave,
    small_updates_are_left_alone_and_rounding_is_even,
    a_sum_of_the_fewest_has_all_of_the_noise,
    the_sum_fits_its_fields,
    clients_unmask_no_sum_of_fewer,
    a_sum_of_fewer_is_read_by_nobody,
    masks_are_others_in_every_round_and_every_packet_looks_like_noise,
)
