"""Saved profiles of unlike states are refused, or the differences are said on top."""

from pathlib import Path

import pytest

from edgetok.comparing import compare_profiles
from edgetok.comparison_report import UNLIKE
from edgetok.conditions import Conditions, Span
from edgetok.errors import InputError, UsageError
from edgetok.report import Check, ProfileReport, read
from edgetok.states import differences
from tests.test_page import made

HERE = {
    "machine": "x86_64", "cpu": "Xeon", "board": None, "cores": 2, "cpu_quota": None, "governors": ["performance"],
    "max_mhz": 3000, "power_mode": None, "kernel": "6.1", "python": "3.11.7", "cpu_features": ["avx2"],
    "packages": {"edgetok": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.32.0"},
}  # fmt: skip


def report(**environment: object) -> ProfileReport:
    return made().model_copy(update={"environment": HERE | environment})


def changed(**model: object) -> ProfileReport:
    one = report()
    return one.model_copy(update={"model": one.model.model_copy(update=model)})


def conditions(mhz: float = 2500, celsius: float = 40, **throttles: int) -> Conditions:
    return Conditions(
        {"cpu": Span(celsius, celsius, celsius + 9, celsius + 8)}, {"cpu0": Span(mhz, 800, mhz, 800)}, throttles
    )


RUNTIME = {"runtime": "onnxruntime", "version": "1.31.0", "threads": "2"}
DECIDING = {
    "cpu": (report(cpu="EPYC"), "cpu: Xeon (a), EPYC (b)"),
    "governors": (report(governors=["powersave"]), "governors: performance (a), powersave (b)"),
    "clock limit": (report(max_mhz=2000), "max mhz: 3000 (a), 2000 (b)"),
    "power mode": (report(power_mode=2), "power mode: not told (a), 2 (b)"),
    "quota": (report(cpu_quota=1.5), "cpu quota: not told (a), 1.5 (b)"),
    "device": (report().model_copy(update={"device": "jetson-thor"}), "device: x86-cpu (a), jetson-thor (b)"),
    "edgetok": (report(packages=HERE["packages"] | {"edgetok": "0.2.0"}), "edgetok: 0.1.0 (a), 0.2.0 (b)"),
    "runtime": (changed(runtime=RUNTIME), "runtime: onnxruntime, 1.32.0, 2 (a), onnxruntime, 1.31.0, 2 (b)"),
    "batch": (changed(latency=report().model.latency.model_copy(update={"batch": 8})), "batch: 1 (a), 8 (b)"),
    "scenario": (report().model_copy(update={"scenario": "offline"}), "scenario: not told (a), offline (b)"),
}


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_is_refused(name: str) -> None:
    other, said = DECIDING[name]
    with pytest.raises(UsageError, match="measured in unlike states") as caught:
        compare_profiles({"a": report(), "b": other})
    assert said in str(caught.value) and "--anyway" in str(caught.value)
    found = compare_profiles({"a": report(), "b": other}, anyway=True)
    assert found.checks[0].name == UNLIKE and found.checks[0].detail.startswith(said) and found.verdict == "warn"


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (conditions(core=0), conditions(core=7), "throttled: never (a), 7 times (b)"),
        (conditions(2500), conditions(1500), "highest clock: 2500 MHz (a), 1500 MHz (b)"),
    ],
)
def test_a_machine_that_slowed_down_in_one_run_is_refused(ours: Conditions, theirs: Conditions, said: str) -> None:
    reports = {"a": changed(conditions=ours), "b": changed(conditions=theirs)}
    with pytest.raises(UsageError, match="unlike states") as caught:
        compare_profiles(reports)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (report(kernel="6.8"), "kernel: 6.1 (a), 6.8 (b)"),
        (report(packages=HERE["packages"] | {"numpy": "2.0.0"}), "numpy: 2.4.6 (a), 2.0.0 (b)"),
        (changed(conditions=conditions(celsius=70)), "temperature at the start: 40 °C (a), 70 °C (b)"),
    ],
)
def test_what_may_play_a_part_is_told(other: ProfileReport, said: str) -> None:
    found = compare_profiles({"a": changed(conditions=conditions()), "b": other})
    assert [check.detail for check in found.checks if check.name == "not alike"] == [said]


def test_like_states_differ_in_nothing() -> None:
    assert differences({"a": report(), "b": report(), "c": report()}) == ()
    slightly = {"a": changed(conditions=conditions(2500, 40)), "b": changed(conditions=conditions(2450, 50))}
    assert differences(slightly) == ()


def test_figures_of_saved_profiles() -> None:
    """The second is 1.5 times as slow in every run."""
    slow = report().against
    found = compare_profiles({"slow": report().model_copy(update={"model": slow}), "fast": report()})
    fast, other = found.rows
    assert (fast.label, other.label, found.against) == ("fast", "slow", "fast")
    assert other.speedup.value == pytest.approx(1 / 1.5) and other.speedup.low < 1 / 1.5 < other.speedup.high
    assert fast.speedup.value == 1 and fast.milliseconds == report().model.latency.median.value
    assert (fast.best, other.best) == (True, False) and found.rounds == ()
    assert any("clock" in check.name and check.name.startswith("fast: ") for check in found.checks)


def test_doubts_about_what_a_profile_was_set_against_are_not_this_comparison_s() -> None:
    names = ("idle machine", "drift, small", "drift, original")
    doubtful = report().model_copy(update={"checks": tuple(Check(name=n, verdict="warn", detail="") for n in names)})
    found = [check.name for check in compare_profiles({"a": report(), "b": doubtful}).checks]
    assert {"b: idle machine", "b: drift, small"} <= set(found) and "b: drift, original" not in found


def test_a_saved_profile_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report().model_dump_json())
    assert read(tmp_path) == read(tmp_path / "report.json") == report()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no profile: report.json as edgetok profile -o DIR writes it is accepted"),
        ('{"schema_version": 2, "model": {}}', "has schema version 2; this edgetok reads version 1"),
        ('{"schema_version": 1, "model": {}}', r"device: Field required; measure it again"),
    ],
)
def test_what_is_no_profile(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path)


def test_a_profile_that_is_not_there_or_endless(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json cannot be read: No such file"):
        read(tmp_path)
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(65 << 20)  # a hole
    with pytest.raises(InputError, match="no profile is longer than 67108864"):
        read(tmp_path)
