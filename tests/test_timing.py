"""The timing loop on a machine whose clock the test owns."""

from itertools import count

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
