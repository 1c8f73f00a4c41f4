"""The timing loop on a machine whose clock the test owns."""

from itertools import count
from math import log
from random import Random
from statistics import NormalDist

import pytest

from edgetok.statistics import runs_needed
from edgetok.timing import measure, sample, warm_up


class Machine:
    """A run takes what `milliseconds` says for the n-th; no other time passes."""

    def __init__(self, milliseconds):
        self.now, self.runs, self.milliseconds = 0, 0, milliseconds

    def run(self):
        self.now += int(self.milliseconds(self.runs) * 1e6)
        self.runs += 1

    def clock(self):
        return self.now


def test_a_sample_is_one_time_per_run():
    machine = Machine(lambda n: n + 1)
    assert sample(machine.run, 3, clock=machine.clock) == [1, 2, 3]


def test_warm_up_goes_on_while_runs_get_faster():
    machine = Machine(lambda n: max(10, 100 - n))
    warmed = warm_up(machine.run, max_seconds=60, clock=machine.clock)
    assert warmed.steady and warmed.runs == machine.runs and warmed.seconds == machine.now / 1e9
    assert machine.milliseconds(machine.runs) == 10


def test_warm_up_says_when_it_never_got_steady():
    machine = Machine(lambda n: 10 + n)
    warmed = warm_up(machine.run, max_seconds=3, clock=machine.clock)
    assert not warmed.steady and 3 <= warmed.seconds < 3.2


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
def test_enough_runs_for_the_percentile_and_no_more(percentile):
    machine = Machine(lambda n: 5)
    timing = measure(machine.run, percentile=percentile, min_seconds=0, clock=machine.clock)
    assert len(timing.milliseconds) == runs_needed(percentile)
    assert timing.quantile(percentile).claimed
    assert machine.runs == len(timing.milliseconds) + timing.warm_up.runs


def test_at_least_the_least_time():
    machine = Machine(lambda n: 5)
    timing = measure(machine.run, min_seconds=2, clock=machine.clock)
    assert sum(timing.milliseconds) == 2000


def test_what_the_time_does_not_allow_is_not_claimed():
    machine = Machine(lambda n: 100)
    timing = measure(machine.run, percentile=0.99, max_seconds=10, clock=machine.clock)
    assert len(timing.milliseconds) == 100
    assert timing.quantile(0.9).claimed and not timing.quantile(0.99).claimed


def test_drift_is_the_second_half_against_the_first():
    machine = Machine(lambda n: 100 if n < 20 else 110)
    timing = measure(machine.run, percentile=0.5, min_seconds=2.0, warm_up_seconds=1, clock=machine.clock)
    assert timing.drift == pytest.approx(0.1)


EXPONENTIAL = (lambda draw: 20 + draw.expovariate(0.5), {0.5: 20 + 2 * log(2), 0.9: 20 + 2 * log(10)})
NORMAL = (lambda draw: draw.gauss(20, 1), {p: NormalDist(20, 1).inv_cdf(p) for p in (0.5, 0.9)})
TWO = (  # a third around 30, the others around 20: the median is the lower one's 3/4 quantile, p90 the upper one's 0.7
    lambda draw: draw.gauss(30 if draw.random() < 1 / 3 else 20, 0.5),
    {0.5: NormalDist(20, 0.5).inv_cdf(0.75), 0.9: NormalDist(30, 0.5).inv_cdf(0.7)},
)


@pytest.mark.parametrize("known", [EXPONENTIAL, NORMAL, TWO], ids=["exponential", "normal", "two speeds"])
def test_known_distributions_give_their_percentiles(known):
    """Measured 300 times: intervals cover the truth as often as they promise, and tell it to a few per cent."""
    (draws, truths), source = known, Random(0)
    covered, trials = dict.fromkeys(truths, 0), 300
    for _ in range(trials):
        machine = Machine(lambda n: draws(source))
        timing = measure(machine.run, percentile=0.9, least=60, min_seconds=0, warm_up_seconds=0, clock=machine.clock)
        for p, truth in truths.items():
            found = timing.quantile(p)
            covered[p] += found.low <= truth <= found.high
    assert all(hit >= 0.925 * trials for hit in covered.values()), covered  # 95 % less two standard errors
    machine = Machine(lambda n: draws(source))
    timing = measure(machine.run, least=5000, min_seconds=0, max_seconds=1e6, clock=machine.clock)
    assert {p: timing.quantile(p).value for p in truths} == pytest.approx(truths, rel=0.02)


def test_progress_grows_to_one():
    machine, told = Machine(lambda n: 5), []
    measure(machine.run, min_seconds=1, clock=machine.clock, progress=lambda what, done: told.append((what, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[-1] == 1 and {what for what, _ in told} == {"measuring"}


def test_the_real_clock():
    runs = count()
    timing = measure(lambda: next(runs), min_seconds=0.01, warm_up_seconds=0.01)
    assert all(time >= 0 for time in timing.milliseconds)
    assert next(runs) == len(timing.milliseconds) + timing.warm_up.runs
