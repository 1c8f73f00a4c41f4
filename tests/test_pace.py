"""Uneven runs are noticed and said, even ones are not complained of: on distributions that are known."""

import random
import re
from math import exp
from types import SimpleNamespace

import pytest

from edgetok.checks import timing_checks
from edgetok.pace import in_words, slow_spell, two_speeds
from edgetok.profiling import Effort
from edgetok.report import Latency
from edgetok.timing import measure
from tests.test_timing import Machine

EVEN = {  # one peak each, whatever the tail
    "normal": lambda draw: 20 + draw.gauss(0, 1),
    "lognormal": lambda draw: 20 * exp(draw.gauss(0, 0.3)),
    "exponential": lambda draw: 20 + draw.expovariate(0.2),
    "uniform": lambda draw: draw.uniform(20, 30),
    "Pareto": lambda draw: 20 + 1 / (1 - draw.random()),
}
EFFORT = Effort(percentile=0.99)


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize("runs", [36, 400])
def test_hardly_a_false_alarm(name, runs):
    draw, told = random.Random(0), 0
    for _ in range(100):
        told += in_words([EVEN[name](draw) for _ in range(runs)]) is not None
    assert told <= 3  # measured: 0 to 1 %


@pytest.mark.parametrize(("runs", "share"), [(36, 0.4), (100, 0.2), (400, 0.1), (400, 0.6)])
def test_a_slow_spell_is_found_where_it_is(runs, share):
    draw = random.Random(0)
    for _ in range(20):
        start = draw.randrange(1, int(runs * (1 - share)))
        end = start + int(share * runs)
        times = [20 * exp(draw.gauss(0, 0.02)) * (1.3 if start <= i < end else 1) for i in range(runs)]
        spell = slow_spell(times)
        assert abs(spell.first - 1 - start) <= 5 and abs(spell.last - end) <= 5
        assert spell.ratio == pytest.approx(1.3, abs=0.03)


@pytest.mark.parametrize(("runs", "share"), [(36, 0.5), (100, 0.3), (400, 0.15)])
def test_two_speeds_are_found(runs, share):
    draw = random.Random(0)
    for _ in range(20):
        slow = set(draw.sample(range(runs), int(share * runs)))
        times = [(26 if i in slow else 20) * exp(draw.gauss(0, 0.02)) for i in range(runs)]
        found = two_speeds(times)
        assert found.fast == pytest.approx(20, rel=0.02) and found.slow == pytest.approx(26, rel=0.02)
        assert found.share == pytest.approx(share, abs=0.03)


def test_what_hardly_differs_is_not_told():
    assert slow_spell([20.0] * 50 + [20.8] * 50) is None and two_speeds([20.0, 20.8] * 50) is None
    assert in_words([]) is None and in_words([1.0]) is None and in_words([5.0] * 400) is None


def checks(milliseconds) -> dict[str, tuple[str, str]]:
    """What a report says of a machine whose n-th run takes `milliseconds(n)`, by the name of the check."""
    machine = Machine(milliseconds)
    timing = measure(machine.run, percentile=0.99, min_seconds=8, warm_up_seconds=1, clock=machine.clock)
    assert len(timing.milliseconds) >= 368 and timing.quantile(0.99).claimed
    found = timing_checks("small", Latency.of(timing, batch=1), {}, EFFORT)
    return {each.name.removesuffix(", small"): (each.verdict, each.detail) for each in found}


def noise(seed: int = 0):
    draw = random.Random(seed)
    return lambda: exp(draw.gauss(0, 0.01))


def test_a_steady_machine_is_not_complained_of():
    about = noise()
    assert {verdict for verdict, _ in checks(lambda n: 20 * about()).values()} == {"pass"}


def test_a_throttle_is_noticed_and_said():
    about = noise()
    found = checks(lambda n: (30 if 300 <= n < 380 else 20) * about())
    assert found["drift"][0] == "pass"  # the halves' medians know nothing of it
    verdict, said = found["pace"]
    assert verdict == "warn" and said.startswith("runs 2") and "took 1.50 times as long as the others" in said


def test_a_suspended_process_is_noticed_and_said():
    """One run of 1.5 s among those of 20 ms: no percentile, no half and no spell knows of it."""
    about = noise()
    found = checks(lambda n: 1500 if n == 300 else 20 * about())
    assert {name for name, (verdict, _) in found.items() if verdict == "warn"} == {"stalls"}
    assert re.fullmatch(r"1 of \d+ runs took more than 10 times the median, up to 1500 ms", found["stalls"][1])


def test_two_modes_are_noticed_and_said():
    about, draw = noise(), random.Random(1)
    found = checks(lambda n: (28 if draw.random() < 0.3 else 20) * about())
    assert found["pace"][0] == "warn" and "around 28 ms, the others 20 ms" in found["pace"][1]


def test_a_drift_is_noticed_and_said():
    about = noise()
    found = checks(lambda n: (20 + max(0, n - 20) / 40) * about())
    assert found["drift"][0] == "warn" and "+2" in found["drift"][1]
    assert found["pace"][0] == "warn" and "times as long as the others" in found["pace"][1]


def test_the_hardware_that_slowed_itself_is_named():
    latency = SimpleNamespace(
        warm_up=SimpleNamespace(steady=True, runs=9), drift=0.0, runs=400, milliseconds=(20.0,) * 400
    )
    (found,) = [
        each for each in timing_checks("small", latency, {"core": 3, "package": 0}, EFFORT) if "throttling" in each.name
    ]
    assert (found.verdict, found.detail) == ("warn", "core (3)")
