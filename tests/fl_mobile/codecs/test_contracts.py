"""`Codec.contracts` against real updates, and what becomes of residuals under every codec."""

from __future__ import annotations

import numpy as np
import pytest

from fl_mobile.client.feedback import residual_after, with_residual
from fl_mobile.codecs import contracting, parse_codec
from fl_mobile.codecs.ecsq import Ecsq
from fl_mobile.tensors import TensorSpec, global_norm
from tests.fl_mobile.real_updates import real_updates
from tests.fl_mobile.samples import ALL, SPEC, laplace, nmse, philox, through

every_codec = pytest.mark.parametrize("text", ALL)
STEPS = [f"ecsq:rounding=rdo,step={step}" for step in (1, 2, 8, 64, 1000)] + ["ecsq:step=1", "ecsq:rounding=nearest"]


@pytest.mark.parametrize("text", [text for text in (*ALL, *STEPS) if parse_codec(text).contracts])
@pytest.mark.parametrize("name", real_updates())
def test_what_contracts_loses_less_than_there_is(text, name):
    spec, update = real_updates()[name]
    decoded = [through(parse_codec(text), update, spec, key=key) for key in range(2)]
    lost = np.mean([nmse(update, one) for one in decoded])
    coded = [path for path in spec if spec[path].size > 256]
    assert lost < 0.999 or not any(decoded[0][path].any() for path in coded), "an absolute threshold may send nothing"


@pytest.mark.parametrize("text", ["ecsq:step=64", "terngrad", "q1", "q1:nearest", "qsgd:4", "flat+eden:0.1"])
def test_what_adds_more_noise_than_there_is_says_so(text):
    assert not parse_codec(text).contracts
    spec, update = real_updates()["two layers, trained"]
    assert np.mean([nmse(update, through(parse_codec(text), update, spec, key=key)) for key in range(3)]) > 0.9


@pytest.mark.parametrize("step", [0.5, 2.0, 8.0, 300.0])
def test_ecsq_always_has_a_way_to_contract_in_packets_that_stay_compatible(step):
    codec = Ecsq(step)
    other = contracting(codec)
    assert other.contracts
    assert other.wire_name == codec.wire_name
    assert other == codec if step < 2 else other == Ecsq(step / 4, "rdo")


def test_rate_distortion_rounding_never_sends_nothing_of_something():
    """A flat update has no value that stands out: all would round to zero, in this round and in every other."""
    spec = {"w": TensorSpec((40, 25))}
    for update in (np.ones((40, 25)), laplace(spec)["w"], np.eye(40, 25) * 1e-30):
        sent = through(Ecsq(50.0, "rdo"), {"w": update.astype(np.float32)}, spec)["w"]
        assert nmse({"w": update.astype(np.float32)}, {"w": sent}) < 1


@every_codec
def test_residuals_stay_below_half_of_what_was_encoded_and_hold_no_statistics(text):
    """With steady updates of norm 1 nothing that is encoded can then be longer than 2, whatever the codec does."""
    residual, codec, scale = None, parse_codec(text), 1 / global_norm(laplace())
    for key in range(12):
        update = {path: np.float32(scale) * value for path, value in laplace(key=key % 3).items()}
        wanted = with_residual(update, residual)
        assert np.array_equal(wanted["norm/moving_variance"], update["norm/moving_variance"])
        residual = residual_after(wanted, through(codec, wanted, key=key), SPEC)
        assert global_norm(residual) <= 0.5001 * global_norm(wanted)
        assert global_norm(wanted) <= 2.001 * max(global_norm(laplace(key=k)) for k in range(3)) * scale
        assert "norm/moving_variance" not in residual


@pytest.mark.parametrize("text", ["ecsq:step=4", "terngrad", "flat+eden:1", "flat+topk:0.1", "sign", "q3"])
def test_sums_of_what_arrives_are_nearer_the_truth_with_a_memory(text):
    codec, spec, rounds = parse_codec(text), {"w": TensorSpec((60, 50))}, 16
    errors = {"none": 0.0, "error-feedback": 0.0}
    for memory in errors:
        for trial in range(3):
            residual, missing = None, np.zeros((60, 50))
            for key in range(rounds):
                steady, fresh = philox(trial).laplace(size=(60, 50)), philox(100 * trial + key).laplace(size=(60, 50))
                update = {"w": (steady + fresh).astype(np.float32)}
                wanted = with_residual(update, residual) if memory != "none" else update
                sent = through(codec, wanted, spec, key=1000 * trial + key)
                residual = residual_after(wanted, sent, spec)
                missing += update["w"] - sent["w"]
            errors[memory] += float(np.sum(missing**2))
    assert errors["error-feedback"] < 0.95 * errors["none"]
