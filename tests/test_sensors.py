"""Sensors on what was recorded, and the energy made of it.

Lines of tegrastats are those that owners of the boards posted: jetson_stats issue 624 (Orin NX or Nano, JetPack 6),
jetson_stats pull request 894 (AGX Orin, JetPack 7.2) and beszel pull request 1631 (TX2, before JetPack 5). The first
two lines of nvidia-smi were recorded on an H200 (driver 580).
"""

import sys
import time
from pathlib import Path

import pytest

from edgetok import sensors
from edgetok.conditions import conditions, energy, memory_line
from edgetok.recorder import Moment, Recorder
from edgetok.sensors import Reading
from edgetok.sensors._lines import LineSensor
from edgetok.sensors.ina3221 import Ina3221, whole
from edgetok.sensors.nvidia_smi import NvidiaSmi
from edgetok.sensors.rapl import Rapl
from edgetok.sensors.tegrastats import Tegrastats
from edgetok.sensors.thermal import Thermal

ORIN = (
    "05-15-2025 18:30:28 RAM 6982/7620MB (lfb 5x1MB) SWAP 2640/16384MB (cached 202MB) "
    "CPU [97%@1984,95%@1984,95%@1984,91%@1984,88%@1984,93%@247] EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] NVENC 1%@115 "
    "NVDEC 40%@115 NVJPG off NVJPG1 off VIC 31%@115 OFA off NVDLA0 off PVA0_FREQ off APE 174 cv0@63.031C cpu@65.562C "
    "soc2@64.156C soc0@63.031C cv1@62.937C gpu@63.5C tj@65.562C soc1@64.718C cv2@60.875C VDD_IN 17946mW/15710mW "
    "VDD_CPU_GPU_CV 8896mW/7585mW VDD_SOC 3923mW/3515mW"
)
JETPACK_7 = "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) EMC_FREQ 3%@3199 GR3D_FREQ 0%@[1300,1300] APE 174"
TX2 = (
    "RAM 3276/7859MB (lfb 5x4MB) SWAP 1626/12122MB (cached 181MB) CPU [44%@1421,49%@2031,67%@2034,17%@1420,25%@1419,"
    "8%@1420] EMC_FREQ 1%@1866 GR3D_FREQ 0%@114 APE 150 MTS fg 1% bg 1% PLL@42.5C MCPU@42.5C PMIC@50C Tboard@38C "
    "GPU@39.5C BCPU@42.5C thermal@41.3C Tdiode@39.25C VDD_SYS_GPU 182/182 VDD_SYS_SOC 730/730 VDD_4V0_WIFI 0/0 "
    "VDD_IN 5297/5297 VDD_SYS_CPU 1917/1917 VDD_SYS_DDR 1241/1241"
)


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def test_tegrastats_of_an_orin() -> None:
    """The first figure of a rail is of now, the second a mean."""
    sensor = Tegrastats([])
    reading = sensor.parse(ORIN)
    assert reading.watts == {"VDD_IN": 17.946, "VDD_CPU_GPU_CV": 8.896, "VDD_SOC": 3.923}
    assert reading.celsius["tj"] == 65.562 and reading.celsius["gpu"] == 63.5 and len(reading.celsius) == 9
    assert reading.megahertz["GR3D"] == 713 and reading.megahertz["EMC"] == 3199
    assert [reading.megahertz[f"cpu{core}"] for core in range(6)] == [1984] * 5 + [247]
    assert sensor.total(set(reading.watts)) == ("VDD_IN",)


def test_older_and_newer_forms() -> None:
    """No unit before JetPack 5; a clock for each cluster from 7.2 on; Thor says no load."""
    old = Tegrastats([]).parse(TX2)
    assert old.watts["VDD_IN"] == 5.297 and old.watts["VDD_SYS_GPU"] == 0.182 and old.celsius["PMIC"] == 50
    assert Tegrastats([]).parse(JETPACK_7).megahertz["GR3D"] == 1300
    assert Tegrastats([]).parse("GR3D_FREQ @[314,314,314]").megahertz == {"GR3D": 314}
    assert Tegrastats([]).parse("CPU [off,12%@729] SOC@-256C") == Reading(megahertz={"cpu1": 729.0})


@pytest.mark.parametrize(
    ("rails", "expected"),
    [
        ({"VDD_IN", "VDD_SOC", "VDD_CPU_GPU_CV"}, ("VDD_IN",)),
        (
            {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"},
            ("VIN_SYS_5V0", "VDD_GPU_SOC", "VDD_CPU_CV"),
        ),
        ({"VIN", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"}, ("VIN",)),
        ({"VDD_GPU", "VDD_SOC"}, ()),
    ],
)
def test_rails_are_not_counted_twice(rails: set[str], expected: tuple[str, ...]) -> None:
    """Nested rails are left out; rails whose sum is not known as the whole are none."""
    assert whole(rails) == expected


def test_power_monitors(tmp_path: Path) -> None:
    """Millivolts times milliamperes; a channel without a label, and one that is not connected, are left out."""
    hwmon = "sys/class/hwmon/hwmon3"
    write(tmp_path, {f"{hwmon}/name": "ina3221", f"{hwmon}/in1_label": "VDD_IN", f"{hwmon}/in1_input": 19056})
    write(tmp_path, {f"{hwmon}/curr1_input": 320, f"{hwmon}/in2_label": "NC", f"{hwmon}/in3_label": "VDD_SOC"})
    write(tmp_path, {"sys/class/hwmon/hwmon4/name": "soctherm_oc", "sys/class/hwmon/hwmon4/oc2_event_cnt": 7})
    sensor = Ina3221.find(tmp_path)
    assert sensor is not None
    assert sensor.read() == Reading(watts={"VDD_IN": pytest.approx(6.09792)}, throttles={"oc2": 7})
    assert Tegrastats.find(tmp_path) is None and Ina3221.find(tmp_path / "nothing") is None


def test_energy_counters_start_again(tmp_path: Path) -> None:
    """A counter that went round goes on growing; cores, which lie within the package, are not added to it."""
    zone = "sys/class/powercap/intel-rapl:0"
    write(tmp_path, {f"{zone}/name": "package-0", f"{zone}/energy_uj": 9_000_000})
    write(tmp_path, {f"{zone}/max_energy_range_uj": 10_000_000})
    write(tmp_path, {"sys/class/powercap/intel-rapl:0:0/name": "core", f"{zone}:0/energy_uj": 5})
    sensor = Rapl.find(tmp_path)
    assert sensor is not None
    assert sensor.read().joules == {"package-0": 9.0}
    write(tmp_path, {f"{zone}/energy_uj": 500_000})
    assert sensor.read().joules == {"package-0": 10.5}
    (tmp_path / zone / "energy_uj").unlink()  # no longer to be read
    assert sensor.read() == Reading()
    assert Rapl.find(tmp_path) is None


def test_temperatures_and_clocks(tmp_path: Path) -> None:
    """Zones by type, hwmon's by chip and label, the clock of every core; a sleeping zone is left out."""
    write(tmp_path, {"sys/class/thermal/thermal_zone0/type": "cpu-thermal"})
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": 49500, "sys/class/thermal/thermal_zone1/type": "gpu"})
    write(tmp_path, {"sys/class/hwmon/hwmon0/name": "coretemp", "sys/class/hwmon/hwmon0/temp2_input": 51000})
    write(tmp_path, {"sys/class/hwmon/hwmon0/temp2_label": "Core 0"})
    cpu = "sys/devices/system/cpu/cpu1"
    write(tmp_path, {f"{cpu}/cpufreq/scaling_cur_freq": 1510400, f"{cpu}/thermal_throttle/core_throttle_count": 3})
    sensor = Thermal.find(tmp_path)
    assert sensor is not None
    assert sensor.read() == Reading(
        celsius={"cpu-thermal": 49.5, "coretemp Core 0": 51.0},
        megahertz={"cpu1": 1510.4},
        throttles={"core too hot": 3},
    )


def test_a_card_that_slows_down() -> None:
    """Fields that a card does not have say "[N/A]"; each reading under a cap counts."""
    sensor = NvidiaSmi([])
    idle = sensor.parse("0, 81.33, 37, 345, 3201, 0x0000000000000001")
    assert idle.watts == {"gpu0": 81.33} and idle.celsius == {"gpu0": 37} and not any(idle.throttles.values())
    capped = sensor.parse("0, 237.07, 55, 1965, 3201, 0x0000000000000004")
    assert capped.megahertz == {"gpu0 sm": 1965, "gpu0 memory": 3201} and capped.throttles["power cap"] == 1
    hot = sensor.parse("0, [N/A], 88, 1200, 3201, 0x0000000000000024")
    assert not hot.watts and hot.throttles["power cap"] == 2 and hot.throttles["too hot"] == 1


class Told(LineSensor):
    """A program of this test's own."""

    name, scope = "told", "module"

    @classmethod
    def find(cls, root: Path) -> None:
        return None

    def parse(self, line: str) -> Reading:
        return Reading(watts={"VDD_IN": float(line)})


def test_a_program_is_followed_and_ended() -> None:
    """The newest line counts; before the first there is nothing; the program ends with the block."""
    lines = "import time\nfor i in range(1000): print(i, flush=True); time.sleep(0.01)"
    with Told([sys.executable, "-c", lines]) as sensor:
        assert sensor.read() == Reading()
        deadline = time.monotonic() + 20
        while not (now := sensor.read().watts).get("VDD_IN") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert now["VDD_IN"] > 0
        process = sensor._process
    assert process.poll() is not None


def moments(watts: list[float], start: float = 0.0) -> list[Moment]:
    readings = [Reading(watts={"VDD_IN": each}, celsius={"gpu": 40 + i}) for i, each in enumerate(watts)]
    return [Moment(start + i, 1000 * i, (reading,)) for i, reading in enumerate(readings)]


def test_energy_of_a_run() -> None:
    """10 W for 4 s are 40 J, over 20 runs 2 J each; idle took 4 W. The ends of the window lie between readings."""
    found = energy([Ina3221([], Path())], moments([10] * 7), (0.5, 4.5), 20, moments([4, 4, 4], start=-10))
    assert found.gross == pytest.approx(2.0) and found.net == pytest.approx(1.2)
    assert found.watts == pytest.approx(10) and found.idle_watts == pytest.approx(4)
    assert found.source == "INA3221 of the module: VDD_IN" and found.readings == 4


def test_a_ramp_is_integrated() -> None:
    """From 0 to 8 W in 8 s: 32 J, and half a watt-second in the first second."""
    ramp = moments([0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert energy([Ina3221([], Path())], ramp, (0, 8), 1, []).gross == pytest.approx(32)
    assert energy([Ina3221([], Path())], ramp, (0, 1), 1, []).gross == pytest.approx(0.5)


def test_energy_that_is_not_known_is_said() -> None:
    """No sensor, one that is silent, rails that are no whole: a reason, and no number."""
    assert energy([], [], (0, 1), 1, []).source.startswith("unavailable: this machine")
    silent = [Moment(float(i), None, (Reading(),)) for i in range(3)]
    assert energy([Thermal({}, {}, [])], silent, (0, 2), 1, []).source == "unavailable: Linux told no power"
    part = [Moment(float(i), None, (Reading(watts={"VDD_SOC": 3.0}),)) for i in range(3)]
    unknown = energy([Ina3221([], Path())], part, (0, 2), 1, [])
    assert unknown.gross is None and "VDD_SOC" in unknown.source


def test_conditions_tell_what_changed() -> None:
    """First, lowest, highest and last; counters as their growth."""
    told = [
        Moment(0.0, None, (Reading(megahertz={"cpu0": 2000}, throttles={"oc1": 5}),)),
        Moment(1.0, None, (Reading(megahertz={"cpu0": 1200}, throttles={"oc1": 9}),)),
        Moment(2.0, None, (Reading(megahertz={"cpu0": 1500}, throttles={"oc1": 9}),)),
    ]
    found = conditions(told)
    span = found.megahertz["cpu0"]
    assert (span.start, span.lowest, span.highest, span.end) == (2000, 1200, 2000, 1500)
    assert found.throttles == {"oc1": 4} and found.celsius == {}


def test_a_line_of_memory_is_thinned_out() -> None:
    """At most so many points, from the first moment on."""
    line = memory_line([Moment(5 + i / 10, i, ()) for i in range(1000)])
    assert len(line) == 200 and line[0] == (0.0, 0) and line[1] == (0.5, 5)


def test_the_recorder_reads_this_machine() -> None:
    """Whatever sensors are here, live; the memory of this very process."""
    import os

    with sensors.opened() as found, Recorder(found, interval=0.01) as recorder:
        recorder.watch(os.getpid())
        start = recorder.now()
        time.sleep(0.2)
        end = recorder.now()
    inside = recorder.between(start, end)
    assert len(inside) >= 5 and all(len(moment.readings) == len(found) for moment in inside)
    assert inside[-1].memory is not None and inside[-1].memory > 10_000_000
    assert inside[0].seconds <= start + 0.05
