"""The sampler against its law, and against itself with its buffers cut otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fl_mobile.kernels import gaussian as kernels
from fl_mobile.privacy import gaussian
from fl_mobile.privacy.gaussian import LARGEST_SIGMA, add_gaussian
from fl_mobile.privacy.keys import Keystream, derive


def draws(sigma: int, count: int, key: int = 0) -> np.ndarray:
    out = np.zeros(count, np.int64)
    add_gaussian(out, sigma, Keystream(derive(bytes(32), "test", key)))
    return out


def p_value(found: np.ndarray, sigma: int) -> float:
    """Returns that of a χ² test against ``P(x) ∝ exp(−x²/2σ²)``; tails are one cell each."""
    edge = math.ceil(3 * sigma)
    x = np.arange(-40 * sigma, 40 * sigma + 1)
    law = np.exp(-(x.astype(float) ** 2) / (2 * sigma**2))
    law /= law.sum()
    cells, seen = (
        np.clip(x, -edge, edge) + edge,
        np.bincount(np.clip(found, -edge, edge) + edge, minlength=2 * edge + 1),
    )
    expected = np.bincount(cells, law) * len(found)
    return float(stats.chisquare(seen, expected).pvalue)


@pytest.mark.parametrize("sigma", [1, 2, 3, 7])
def test_small_ones_have_the_law_of_the_discrete_gaussian(sigma: int) -> None:
    assert p_value(draws(sigma, 200_000), sigma) > 1e-4


def test_it_catches_another_law() -> None:
    twice_zero = draws(1, 200_000)
    twice_zero[::50] = 0
    assert p_value(twice_zero, 1) < 1e-9
    rounded = np.rint(np.random.Generator(np.random.Philox(1)).normal(0, 1, 200_000)).astype(np.int64)
    assert p_value(rounded, 1) < 1e-9


@pytest.mark.parametrize("sigma", [1 << 20, 1_288_490_189, LARGEST_SIGMA])
def test_large_ones_are_normal(sigma: int) -> None:
    found = draws(sigma, 100_000) / sigma
    assert stats.kstest(found, "norm").pvalue > 1e-4
    assert abs(found.std() - 1) < 0.01
    assert len(np.unique(draws(sigma, 1000) % 1024)) > 600, "the low bits are random as well"


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_where_a_buffer_ends_changes_no_draw(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draws(1000, 500)
    monkeypatch.setattr(gaussian, "_PIECE", piece)
    monkeypatch.setattr(gaussian, "_WORDS_A_DRAW", 1)
    assert np.array_equal(draws(1000, 500), whole)


def test_other_keys_and_other_places_are_other_noise() -> None:
    one, two = draws(1 << 30, 4000, key=1), draws(1 << 30, 4000, key=2)
    assert not (one == two).any()
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.06


@pytest.mark.parametrize("sigma", [0, -1, 1.5, LARGEST_SIGMA + 1])
def test_no_other_sigma_is_taken(sigma: object) -> None:
    with pytest.raises(ValueError, match="whole sigma"):
        add_gaussian(np.zeros(1, np.int64), sigma, Keystream(bytes(32)))  # type: ignore[arg-type]


def test_the_keystream_is_chacha20s() -> None:
    """RFC 8439, appendix A.1, test vector 1: the first block of the all-zero key and nonce."""
    block = (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert Keystream(bytes(32)).take(64).hex() == block
    assert Keystream(bytes(32)).words(2).astype("<i8").tobytes().hex() == block[:32]


def test_scaled_values_lose_their_fraction_toward_zero() -> None:
    values = np.array([0.9, -0.9, 1.99, -1.99, 2.0, 1e-40], np.float32)
    total = np.zeros(6, np.int64)
    kernels.add_toward_zero(total, values, 1.0)
    assert total.tolist() == [0, 0, 1, -1, 2, 0]
    kernels.add_toward_zero(total, values, -1.0)
    assert not total.any()
