"""Samplers: laws over every row, and what each promises."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.fleet.devices.fleet import open_fleet
from device_sim.fleet.devices.profiles import PROFILES
from device_sim.fleet.ledger import Ledger
from device_sim.fleet.reasons import code_of
from device_sim.fleet.selection.cohort import Choice, Request
from device_sim.fleet.selection.oort import Guided
from device_sim.fleet.selection.samplers import SAMPLERS, Candidates, apportion, choose
from device_sim.fleet.selection.strata import STRATA, Holdings, open_strata
from device_sim.fleet.selection.walk import head
from fl_mobile.errors import ConfigError

HOLDINGS = Holdings(majority_label=lambda index: index % 7, examples=lambda index: index % 100)


def everyone(index):
    return np.zeros(len(index), np.uint8)


def only(part):
    """Devices whose index is in ``part`` of every ten can."""
    return lambda index: np.where(np.isin(index % 10, part), 0, code_of("busy")).astype(np.uint8)


def ledger_of(index, *, loss=1.0, examples=10.0, seconds=10.0, last_round=0):
    ledger, ones = Ledger(), np.ones(len(index))
    ledger.took_part(
        np.asarray(index),
        round_num=last_round,
        at_seconds=0.0,
        task_seconds=seconds * ones,
        examples=examples * ones,
        loss=loss * ones,
    )
    return ledger


def request(population=500, count=20, *, round_num=0, seed=1, ask=everyone, **options):
    return Request(seed, round_num, population, count, ask, **options)


requests = st.builds(
    lambda population, count, round_num, seed, part, strata: request(
        population,
        min(count, population),
        round_num=round_num,
        seed=seed,
        ask=only(part),
        stratum_of=lambda index: index % strata,
        stratum_shares=(1 / strata,) * strata,
    ),
    st.integers(1, 6000),
    st.integers(1, 60),
    st.integers(0, 200),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 9), max_size=10),
    st.integers(1, 4),
)


@pytest.mark.parametrize("name", SAMPLERS)
@given(wanted=requests, seen=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_cohorts_are_seeded_distinct_and_can(name, wanted, seen):
    index = np.arange(min(seen, wanted.population))
    ledger = ledger_of(index, loss=np.sin(index) + 1, seconds=np.cos(index) + 2) if len(index) else Ledger()
    asked = []

    def ask(devices):
        asked.append(devices)
        return wanted.ask(devices)

    chosen = choose(name, replace(wanted, ask=ask), ledger)
    again = choose(name, wanted, ledger)
    assert np.array_equal(chosen.devices, again.devices)
    assert np.array_equal(chosen.refused, again.refused)
    assert chosen.devices.dtype == np.int64
    assert (np.diff(chosen.devices) > 0).all(), "rising, none twice"
    assert ((chosen.devices >= 0) & (chosen.devices < wanted.population)).all()
    assert not wanted.ask(chosen.devices).any(), "who cannot is not asked to"
    assert (chosen.refused > 0).all()
    assert name == "poisson" or len(chosen.devices) <= wanted.count
    assert np.isin(chosen.devices, np.concatenate([*asked, np.zeros(0, np.int64)])).all()


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "poisson"])
@pytest.mark.parametrize("population", [25, 100_000])
def test_cohorts_are_full_where_enough_can(name, population):
    for round_num in range(4):
        assert len(choose(name, request(population, round_num=round_num), Ledger()).devices) == 20
        ledger = ledger_of(np.arange(25))
        assert len(choose(name, request(population, round_num=round_num), ledger).devices) == 20


@pytest.mark.parametrize("name", SAMPLERS)
def test_rounds_and_seeds_differ(name):
    cohorts = {tuple(choose(name, request(round_num=r, seed=s), Ledger()).devices) for r in range(5) for s in range(5)}
    assert len(cohorts) == 25


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_fleet_in_which_nobody_can_gives_nobody_and_ends(name):
    chosen = choose(name, request(1_000_000, 50, ask=only([])), Ledger())
    assert not len(chosen.devices)
    assert len(chosen.refused) <= 6000


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_cohort_of_a_million_takes_less_than_a_byte_a_device(name):
    ledger = ledger_of(np.arange(2000))
    wanted = request(1_000_000, 200, ask=only([3]), round_num=9)
    choose(name, wanted, ledger)  # NumPy loads parts of itself at first use
    tracemalloc.start()
    choose(name, wanted, ledger)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 900_000


@pytest.mark.parametrize("name", ["uniform", "poisson"])
def test_everybody_is_as_likely(name):
    """Chi-squared of 50 devices that can over 600 rounds; its 99.9th percentile at 49 is 85.4."""
    found = np.zeros(100)
    for round_num in range(600):
        found[choose(name, request(100, 20, ask=only([0, 2, 4, 6, 8]), round_num=round_num), Ledger()).devices] += 1
    assert not found[1::2].any()
    expected = found[::2].mean()
    assert expected == pytest.approx(600 * (0.4 if name == "uniform" else 0.2), rel=0.03)
    inclusion = expected / 600
    assert ((found[::2] - expected) ** 2 / (expected * (1 - inclusion))).sum() < 85.4


def test_every_refusal_up_to_the_last_device_found_is_counted():
    """The oracle asks one after the other until it has a hundred."""
    wanted = request(10_000, 100, ask=only([0, 1]))
    order = head(1, 0, "cohort", population=10_000, count=10_000)
    can = order % 10 < 2
    asked = int(np.searchsorted(np.cumsum(can), 100)) + 1
    chosen = choose("uniform", wanted, Ledger())
    assert np.array_equal(chosen.devices, np.sort(order[:asked][can[:asked]]))
    assert chosen.refused.tolist() == [code_of("busy")] * (asked - 100)
    whole = choose("uniform", request(300, 100, ask=only([0, 1])), Ledger())
    assert len(whole.devices) + len(whole.refused) == 300, "too few can: everybody was asked"


@pytest.mark.parametrize("population", [1000, 100_000])
def test_poisson_sizes_are_binomial(population):
    sizes = np.array(
        [len(choose("poisson", request(population, 50, round_num=r), Ledger()).devices) for r in range(800)]
    )
    rate = 50 / population
    assert sizes.mean() == pytest.approx(50, abs=4 * np.sqrt(50 / 800))
    assert sizes.var() == pytest.approx(50 * (1 - rate), rel=0.2)


def test_poisson_devices_are_independent():
    """Two devices are together as often as the product of their chances; uniform samples of fixed size are not."""
    together = alone = 0
    for round_num in range(3000):
        chosen = choose("poisson", request(10, 5, round_num=round_num), Ledger()).devices
        alone += 0 in chosen
        together += 0 in chosen and 1 in chosen
    assert alone / 3000 == pytest.approx(0.5, abs=0.04)
    assert together / 3000 == pytest.approx(0.25, abs=0.035), "4/9 * 1/2 = 0.222 without replacement at fixed size"


def test_a_cohort_of_the_whole_population_is_the_population():
    for name in SAMPLERS:
        chosen = choose(name, request(30, 30), ledger_of(np.arange(10)))
        assert chosen.devices.tolist() == list(range(30))


ASKED_BEFORE = ledger_of(np.arange(0, 1000, 2), loss=1 + np.arange(500) % 10, seconds=5.0 + np.arange(500) % 3)
"""Of 1,000 devices the even ones have been seen, with losses from 1 to 10."""
SHARES = (0.5, 0.3, 0.2)


def by_share(index):
    return np.searchsorted(np.cumsum(SHARES), (index * 0.618) % 1.0)


def facts_of(devices):
    """Parts of the devices in each stratum, part of them never seen, mean loss of the others."""
    seen = devices[devices % 2 == 0]
    parts = np.bincount(by_share(devices), minlength=3) / len(devices)
    return np.array([*parts, 1 - len(seen) / len(devices), np.mean(1 + seen // 2 % 10) / 10 if len(seen) else 0.5])


def ask_one_by_one(name, count, rounds, **options):
    """As FedBuff asks: ``count`` devices are always under way, and each that is done is replaced by one asking."""
    flights, asked = [], []
    for draw in range(count * rounds):
        flights = flights[-(count - 1) :] if count > 1 else []
        wanted = request(
            *(1000, 1),
            round_num=draw // count,
            draw=draw,
            under_way=np.array(flights, np.int64),
            whole=count,
            **options,
        )
        found = choose(name, wanted, ASKED_BEFORE).devices.tolist()
        assert not set(found) & set(flights), "nobody is asked who is under way"
        flights, asked = flights + found, asked + found
    return np.array(asked)


PLANS = {"power-of-choice": Candidates(60), "oort": Guided(exploration=0.5)}


@pytest.mark.parametrize(
    ("name", "plan"), [*((name, row.parameters()) for name, row in SAMPLERS.items()), *PLANS.items()]
)
def test_many_askings_of_one_are_about_one_asking_of_many(name, plan):
    options = {"plan": plan, "stratum_of": by_share, "stratum_shares": SHARES}
    together = np.concatenate(
        [choose(name, request(1000, 20, round_num=r, **options), ASKED_BEFORE).devices for r in range(30)]
    )
    single = ask_one_by_one(name, 20, 30, **options)
    assert len(single) == pytest.approx(len(together), rel=0.15)
    np.testing.assert_allclose(facts_of(single), facts_of(together), atol=0.1)
    most = np.bincount(together).max()
    assert np.bincount(single).max() <= 2 * most + 2, "no few devices do all the work"


@pytest.mark.parametrize("count", [1, 3])
def test_small_cohorts_give_every_stratum_its_share_over_rounds(count):
    options = {"stratum_of": by_share, "stratum_shares": SHARES}
    found = [choose("stratified", request(1000, count, round_num=r, **options), Ledger()).devices for r in range(100)]
    seats = np.bincount(by_share(np.concatenate(found)), minlength=3)
    assert (np.abs(seats - 100 * count * np.array(SHARES)) <= 5).all()


def test_oort_goes_by_the_version_of_the_model_not_by_the_count_of_askings():
    """Asking 2,000 of version 3 explores as much as asking 3: decay and pacer count rounds."""
    early, late = (
        choose("oort", request(1000, 100, round_num=3, draw=draw), ASKED_BEFORE).devices % 2 for draw in (3, 2000)
    )
    assert (early.mean(), late.mean()) == pytest.approx((0.9 * 0.98**3,) * 2, abs=0.011)


@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_apportionment(count, shares, offset):
    seats = apportion(count, np.array(shares), offset)
    exact = count * np.array(shares) / sum(shares)
    assert seats.sum() == count
    assert (np.abs(seats - exact) < 1 + 1e-6).all(), "within one of the exact share (the quota rule)"
    assert (seats >= 0).all()


@pytest.mark.parametrize("ask", [everyone, only([1, 2, 3])])
def test_strata_have_their_shares(ask):
    fleet = open_fleet(2, 200_000)
    stratum_of = open_strata("profile", fleet, HOLDINGS).of
    exact = tuple(p.share for p in PROFILES.values())
    wanted = request(200_000, 100, ask=ask, stratum_of=stratum_of, stratum_shares=exact)
    found = np.bincount(stratum_of(choose("stratified", wanted, Ledger()).devices), minlength=len(PROFILES))
    assert found.tolist() == [0, 10, 20, 35, 25, 10]


@pytest.mark.parametrize("name", STRATA)
@pytest.mark.parametrize("population", [700, 50_000])
def test_strata_are_whole_numbers_with_the_shares_they_have(name, population):
    strata = open_strata(name, open_fleet(4, population), HOLDINGS)
    found = np.bincount(strata.of(np.arange(population)), minlength=len(strata.shares)) / population
    np.testing.assert_allclose(strata.shares, found, atol=0.025 if population > 4096 else 1e-12)
    assert sum(strata.shares) == pytest.approx(1)
    wanted = request(population, 60, stratum_of=strata.of, stratum_shares=strata.shares)
    cohort = strata.of(choose("stratified", wanted, Ledger()).devices)
    assert (np.abs(np.bincount(cohort, minlength=len(found)) - 60 * np.array(strata.shares)) < 1).all()


def test_sizes_are_quartered():
    strata = open_strata("size", open_fleet(4, 1000), HOLDINGS)
    np.testing.assert_allclose(strata.shares, 0.25, atol=0.01)
    assert (np.diff(strata.of(np.arange(100))) >= 0).all()


def test_an_unknown_division_is_named():
    with pytest.raises(ConfigError, match=r"unknown selection\.strata 'labels'\. Did you mean 'label'"):
        open_strata("labels", open_fleet(0, 10), HOLDINGS)


def test_devices_of_no_stratum_are_counted_nowhere_and_never_chosen():
    holdings = replace(HOLDINGS, majority_label=lambda index: np.where(index % 3, index % 5, -1))
    strata = open_strata("label", open_fleet(4, 3000), holdings)
    assert len(strata.shares) == 5
    wanted = request(3000, 60, stratum_of=strata.of, stratum_shares=strata.shares)
    assert (choose("stratified", wanted, Ledger()).devices % 3 > 0).all()
    with pytest.raises(ConfigError, match="none of 10 devices"):
        open_strata("label", open_fleet(4, 10), replace(HOLDINGS, majority_label=lambda index: np.full(len(index), -1)))


def test_a_stratum_that_no_share_was_measured_for_gets_nobody():
    wanted = request(100, 20, stratum_of=lambda index: index % 5, stratum_shares=(0.5, 0.5))
    found = np.bincount(choose("stratified", wanted, Ledger()).devices % 5)
    assert found.tolist() == [10, 10]


def test_a_stratum_in_which_too_few_can_is_not_filled_from_others():
    wanted = request(
        5000, 40, ask=only([0, 1, 2]), stratum_of=lambda i: (i % 10 == 3).astype(int), stratum_shares=(0.5, 0.5)
    )
    assert len(choose("stratified", wanted, Ledger()).devices) == 20


def test_power_of_choice_takes_the_highest_losses_of_its_candidates():
    """The oracle: the uniform sampler's 60 candidates, sorted by loss."""
    loss = np.random.default_rng(0).random(500)
    wanted = request(500, 20, plan=Candidates(candidates=60))
    candidates = choose("uniform", replace(wanted, count=60), Ledger()).devices
    best = sorted(candidates, key=lambda d: -loss[d])[:20]
    chosen = choose("power-of-choice", wanted, ledger_of(np.arange(500), loss=loss))
    assert chosen.devices.tolist() == sorted(best)


def test_power_of_choice_asks_the_unknown_first():
    wanted = request(500, 20, plan=Candidates(candidates=60))
    candidates = choose("uniform", replace(wanted, count=60), Ledger()).devices
    known = candidates[:45]
    chosen = choose("power-of-choice", wanted, ledger_of(known, loss=99.0)).devices
    assert set(candidates[45:]) <= set(chosen)


def test_power_of_choice_among_the_unknown_is_even():
    found = np.zeros(500)
    for round_num in range(400):
        found[choose("power-of-choice", request(500, 20, round_num=round_num), Ledger()).devices] += 1
    low, high = found[:250].sum(), found[250:].sum()
    assert abs(low - high) < 4 * np.sqrt(8000)


def oort(ledger, **options) -> Choice:
    plan = Guided(exploration=0.0, exploration_min=0.0, round_percentile=50)
    return choose("oort", request(1000, 50, round_num=5, plan=plan, **options), ledger)


def test_oort_prefers_devices_that_still_learn():
    devices = np.arange(1000)
    useful = devices % 4 == 0
    chosen = oort(ledger_of(devices, loss=np.where(useful, 2.0, 0.1))).devices
    assert useful[chosen].mean() == 1


def test_oort_prefers_more_examples_at_the_same_loss():
    devices = np.arange(1000)
    many = devices % 4 == 0
    assert many[oort(ledger_of(devices, examples=np.where(many, 200.0, 5.0))).devices].mean() == 1


def test_oort_prefers_the_fast_at_the_same_utility():
    devices = np.arange(1000)
    slow = devices % 4 == 0
    loss = np.linspace(1, 1.01, 1000)
    chosen = oort(ledger_of(devices, loss=loss, seconds=np.where(slow, 100.0, 10.0))).devices
    assert not slow[chosen].any()
    both = oort(ledger_of(devices, loss=loss)).devices
    assert slow[both].mean() == pytest.approx(0.25, abs=0.2), "it catches: equally fast, both kinds are chosen"


def test_oort_comes_back_to_those_it_has_not_seen_for_long():
    devices = np.arange(1000)
    stale = devices % 4 == 0
    ledger = ledger_of(devices, last_round=0)
    ledger.record(devices[~stale], {"last_round": np.full(750, 4.0)})
    assert stale[oort(ledger).devices].mean() == 1


def test_oort_explores_less_and_less_and_the_quick_first():
    def part_new(round_num):
        wanted = request(10_000, 100, round_num=round_num, seconds_of=lambda i: np.where(i % 2, 1.0, 1000.0))
        chosen = choose("oort", wanted, ledger_of(np.arange(2000), seconds=10.0)).devices
        new = chosen[chosen >= 2000]
        assert (new % 2).mean() > 0.95, "a slow newcomer weighs (10/1000)²"
        return len(new)

    parts = [part_new(round_num) for round_num in (0, 10, 30, 100)]
    assert parts[0] == 90
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == 30


def test_oort_relaxes_the_preferred_duration():
    """By round 280 the pacer is at 30 + 14 x 5 = 100 percent: the slow are no longer penalised."""
    devices = np.arange(1000)
    slow = devices % 4 == 0
    ledger = ledger_of(devices, loss=np.where(slow, 2.0, 1.0), seconds=np.where(slow, 1e4, 10.0), last_round=3)
    plan = Guided(exploration=0.0, exploration_min=0.0)
    early, late = (
        slow[choose("oort", request(1000, 50, round_num=r, plan=plan), ledger).devices].mean() for r in (5, 280)
    )
    assert (early, late) == (0, 1)


def test_an_unknown_sampler_is_named():
    with pytest.raises(ConfigError, match=r"unknown selection\.sampler 'unifrom'\. Did you mean 'uniform'"):
        choose("unifrom", request(), Ledger())
