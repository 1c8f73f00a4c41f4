"""Intervals against the exact binomial distribution, and against what they promise."""

import random
from fractions import Fraction
from itertools import accumulate
from math import comb

import pytest

from edgetok.statistics import interval_ranks, quantile, ratio, runs_needed


def below(n: int, p: Fraction) -> list[Fraction]:
    """P(fewer than k of n runs lie below the p-quantile) for k = 0..n+1, exactly."""
    hit, miss = p.numerator, p.denominator - p.numerator
    ways = accumulate((comb(n, i) * hit**i * miss ** (n - i) for i in range(n + 1)), initial=0)
    return [Fraction(way, p.denominator**n) for way in ways]


@pytest.mark.parametrize("n", [1, 5, 6, 9, 35, 36, 37, 100, 367, 368, 500])
@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)])
def test_ranks_are_the_tightest_that_lose_no_more_than_a_fortieth_on_either_side(n, p):
    low, high = interval_ranks(n, float(p))
    tail, exact = Fraction(1, 40), below(n, p)
    low_ranks = [k for k in range(1, n + 1) if exact[k] <= tail]
    high_ranks = [k for k in range(1, n + 1) if 1 - exact[k] <= tail]
    assert low == (max(low_ranks) if low_ranks else None)
    assert high == (min(high_ranks) if high_ranks else None)


@pytest.mark.parametrize(("p", "runs"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_runs_needed_is_where_the_interval_gets_two_ends(p, runs):
    assert runs_needed(p) == runs
    assert quantile(range(1, runs + 1), p).claimed
    assert not quantile(range(1, runs), p).claimed


@pytest.mark.parametrize(("n", "p"), [(9, 0.5), (60, 0.9), (400, 0.99)])
def test_intervals_cover_the_true_quantile_of_a_skewed_distribution(n, p):
    draw, trials, covered = random.Random(0), 1000, 0
    truth = 1 / (1 - p)  # Pareto with shape 1: P(X > x) = 1 / x
    for _ in range(trials):
        found = quantile([1 / (1 - draw.random()) for _ in range(n)], p)
        covered += found.low <= truth <= found.high
    assert covered >= 0.935 * trials  # 95 % less two standard errors


def test_nearest_rank_and_the_flag_of_the_largest():
    sample = [float(i) for i in range(1, 101)]
    random.Random(0).shuffle(sample)
    assert [quantile(sample, p).value for p in (0.07, 0.5, 0.9, 0.99)] == [7, 50, 90, 99]
    assert not quantile(sample, 0.99).is_max
    few = quantile(sample[:20], 0.99)
    assert few.is_max and few.value == max(sample[:20]) and few.high is None
    assert str(few).endswith(", ?]")


def test_ratio_of_pairs_cancels_what_slows_both():
    slowing = [1.0 + i for i in range(9)]
    found = ratio([(3 * s, 2 * s) for s in slowing])
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(("sample", "p"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.0)])
def test_no_quantile_of_nothing(sample, p):
    with pytest.raises(ValueError, match="needs a sample and 0 < p < 1"):
        quantile(sample, p)
