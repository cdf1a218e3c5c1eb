"""What must hold of a client that adds noise to its own update, one function each; `test_planted` turns each red."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fl_mobile import wire
from fl_mobile.client import answer as client
from fl_mobile.errors import ConfigError, DivergedError, WireError
from fl_mobile.privacy import accounting, local
from fl_mobile.privacy.claim import NONE_ASSUMED, POISSON, Claim
from fl_mobile.privacy.local import UNIT, LocalNoise
from fl_mobile.protocol import terms as protocol
from fl_mobile.records import Assignment, FitPlan, ServerState, Update
from fl_mobile.server import publish
from fl_mobile.server.step import ServerRules
from fl_mobile.tensors import Tensors
from fl_mobile.wire.download import Decoded
from tests.fl_mobile.privacy.checks import AGREEMENT, LAYOUT, NONE, SPEC, update

NOISE = LocalNoise(clip_norm=0.5, noise_multiplier=2.0, answers=9)
NOISED = replace(AGREEMENT, local_noise=NOISE)
SECRET = hashlib.sha256(b"a device").digest()


def flat(tensors: Tensors) -> np.ndarray:
    """Returns all values end to end, ``float64[n]``."""
    return np.concatenate([value.reshape(-1) for value in tensors.values()]).astype(np.float64)


def sent(
    delta: Tensors, *, secret: bytes = SECRET, run: str = "run", round_num: int = 3, noise: LocalNoise = NOISE
) -> np.ndarray:
    """Returns what the packet of an update decodes to, by way of all that a client does."""
    agreement = replace(AGREEMENT, local_noise=noise)
    told = client.terms_of(agreement, Assignment(round_num, FitPlan(), NONE), Decoded(0, AGREEMENT.initial), {})
    made = client.answer(told, Update(delta, 40, {"loss": 0.5}), 3, secret=secret, run=run)
    header = LAYOUT.header(made.packet)
    assert (header.num_examples, math.isnan(header.loss)) == (1, True)
    return flat(wire.unpack(made.packet, SPEC, NONE).tensors)


def noise_is_on_every_coordinate_and_of_its_size() -> None:
    for noise in (NOISE, LocalNoise(4.0, 1.0, 1)):
        zeros = {path: np.zeros(t.shape, np.float32) for path, t in SPEC.items()}
        for delta in (zeros, update(1, 0.1), {**zeros, "scale": np.float32(0.1)}):
            left = sent(delta, noise=noise) - flat(delta)
            sigma = noise.noise_multiplier * noise.clip_norm
            assert np.count_nonzero(left) == len(left)
            assert len(np.unique(left)) > 0.99 * len(left)
            for part in (left, left[:2000], left[2000:]):
                assert abs(part.std() / sigma - 1) < 5 / math.sqrt(2 * len(part)), part.std() / sigma
                assert abs(part.mean()) < 5 * sigma / math.sqrt(len(part))


def updates_are_clipped_before_the_noise_and_small_ones_left_alone() -> None:
    for norm in (0.1, 0.499, 0.5, 0.6, 7.0, 1e20):
        values = flat(update(1, norm))
        whole = local._on_grid(values, NOISE.clip_norm)
        length = math.sqrt(sum(int(x) ** 2 for x in whole))
        assert length <= UNIT
        assert length > 0.9999 * UNIT * min(norm / NOISE.clip_norm, 1), norm
        assert np.dot(whole, values) > 0.999 * length * norm


def a_clip_of_the_clients_is_what_leaves() -> None:
    far, near = (sent(update(1, norm), secret=SECRET) for norm in (7.0, 70.0))
    for value in (far, near):
        assert np.linalg.norm(value) > 0.9 * 2.0 * 0.5 * math.sqrt(len(value)), "clipped after the noise"
        share = np.dot(value, flat(update(1, 1.0)))
        assert abs(share - 0.5) < 5 * 1.0, "not clipped"
    mean = np.mean([sent(update(1, 7.0), round_num=t) for t in range(100)], axis=0)
    assert abs(np.dot(mean, flat(update(1, 1.0))) - 0.5) < 5 / math.sqrt(100)


def the_same_answer_is_made_again() -> None:
    assert np.array_equal(sent(update(1, 0.3)), sent(update(1, 0.3)))


def noise_is_independent_of_all_other_noise() -> None:
    base = sent(update(1, 0.3)) - flat(update(1, 0.3))
    others = {
        "round": sent(update(1, 0.3), round_num=4) - flat(update(1, 0.3)),
        "run": sent(update(1, 0.3), run="other") - flat(update(1, 0.3)),
        "device": sent(update(1, 0.3), secret=bytes(32)) - flat(update(1, 0.3)),
        "update": sent(update(2, 0.3)) - flat(update(2, 0.3)),
        "norm": sent(update(1, 0.3), noise=replace(NOISE, clip_norm=0.6)) - flat(update(1, 0.3)),
    }
    for what, noise in others.items():
        along = float(np.dot(base, noise)) / (1e-30 + np.linalg.norm(base) * np.linalg.norm(noise))
        assert abs(along) < 5 / math.sqrt(len(base)), what


def not_numbers_do_not_leave() -> None:
    for bad in (math.nan, math.inf):
        delta = update(1, 0.3)
        delta["kernel"][3, 4] = bad
        _refused(DivergedError, lambda delta=delta: local.noised(delta, NOISE, secret=SECRET, run="", round_num=0))


def two_updates_of_one_client_are_two_norms_apart() -> None:
    claim = Claim(NONE_ASSUMED, 100, 10, 4.0, 1e-3, local=True)
    removed = Claim(NONE_ASSUMED, 100, 10, 2.0, 1e-3)
    assert accounting.curve(claim, [1, 5]) == accounting.curve(removed, [1, 5])
    _refused(ConfigError, lambda: Claim(POISSON, 100, 10, 4.0, 1e-3, local=True))


def a_memory_beside_local_noise_is_refused() -> None:
    state = ServerState(0, AGREEMENT.initial, SPEC)
    for more in ({"memory": "error-feedback"}, {"bare_packets": False}):
        agreement = replace(NOISED, **more)
        _refused(ConfigError, lambda agreement=agreement: publish.assign(agreement, ServerRules(), state, FitPlan()))
    assert publish.assign(NOISED, ServerRules(), state, FitPlan())[1].clip_norm == 0


def terms_say_it_and_older_clients_stay_away() -> None:
    body = protocol.terms_to_json(NOISED, SPEC, frozenset(), protocol.Blob("0" * 64, 0), {"learning_rate": 1.0})
    first = protocol.initial_bytes(AGREEMENT.initial)
    assert json.loads(body)["format"] == 2
    assert protocol.terms_from_json(body, first).agreement.local_noise == NOISE
    plain = protocol.terms_to_json(AGREEMENT, SPEC, frozenset(), protocol.Blob("0" * 64, 0), {"learning_rate": 1.0})
    assert json.loads(plain)["format"] == 1
    assert protocol.terms_from_json(plain, first).agreement.local_noise is None
    value = json.loads(body)
    for wrong in ({"format": 1}, {"local_noise": None}, {"local_noise": {**value["local_noise"], "answers": 0}}):
        damaged = json.dumps({**value, **wrong}).encode()
        _refused(WireError, lambda damaged=damaged: protocol.terms_from_json(damaged, first))


def _refused(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError("was not refused")


LOCAL_CHECKS: tuple[Callable[[], None], ...] = (
    two_updates_of_one_client_are_two_norms_apart,
    a_memory_beside_local_noise_is_refused,
    terms_say_it_and_older_clients_stay_away,
    updates_are_clipped_before_the_noise_and_small_ones_left_alone,
    the_same_answer_is_made_again,
    noise_is_independent_of_all_other_noise,
    noise_is_on_every_coordinate_and_of_its_size,
    not_numbers_do_not_leave,
    a_clip_of_the_clients_is_what_leaves,
)
