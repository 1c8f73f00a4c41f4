"""Device profiles: sources, peaks, and which machine is which. tests/data/machines holds small file systems.

Release lines, part number, board model and compatible strings of the Orin Nano are as published from real boards (those
of the board under JetPack 6 serve for 7.2 too), so are the release lines of Thor and AGX Orin; their compatible strings
and the Raspberry Pi's are those of the kernel's device trees. The files of the H200 were recorded on one (driver
580.159.04), its UUID left out; the rest is written in the kernel's and the driver's format.
"""

from pathlib import Path

import pytest

from benchmarks import device_table
from edgetok import device as device_module
from edgetok import devices
from edgetok import machine as machine_module
from edgetok.device import Device, Sourced, version_key
from edgetok.errors import DeviceError, UnknownName
from edgetok.fingerprint import cores_available
from edgetok.machine import Machine, here, resolve
from edgetok.roofline import roof

MACHINES = Path(__file__).parent / "data" / "machines"
EVERY = devices.load_all()
MATCHES = {
    "orin-nano-jp62": ["aarch64-cpu", "cortex-a78ae", "jetson-orin-nano-jp62"],
    "orin-nano-jp72": ["aarch64-cpu", "cortex-a78ae", "jetson-orin-nano-jp72"],
    "rtx-4090": ["rtx-4090", "x86-cpu"],
    "raspberry-pi-5": ["aarch64-cpu", "raspberry-pi-5"],
    "thor-jp70": ["aarch64-cpu", "jetson-thor-t5000-jp70"],
    "agx-orin-jp51": ["aarch64-cpu", "cortex-a78ae", "jetson-agx-orin-64gb-jp51"],
    "h200": ["h200-sxm", "x86-cpu"],
}


def test_names_are_the_files():
    assert devices.names() == sorted(path.stem for path in Path(devices.__file__).parent.glob("*.toml"))
    with pytest.raises(UnknownName, match="no device 'rtx4090': did you mean 'rtx-4090'"):
        devices.load("rtx4090")


@pytest.mark.parametrize("machine", MATCHES)
def test_a_machine_is_recognised_by_its_files(machine):
    assert here(EVERY, Machine.read(MACHINES / machine)) == MATCHES[machine]


def test_what_a_jetson_says_of_itself():
    machine = Machine.read(MACHINES / "orin-nano-jp62")
    assert (machine.arch, machine.l4t) == ("aarch64", "36.4.3")
    assert machine.compatible[-1] == "nvidia,tegra234"
    assert "asimddp" in machine.flags
    assert str(machine) == (
        "aarch64, CPU part 0xd42, "
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, Jetson Linux 36.4.3"
    )


def test_another_jetpack_is_another_device(tmp_path):
    jetson = Machine.read(MACHINES / "orin-nano-jp62")
    profile = devices.load("jetson-orin-nano-jp62")
    for release, fits in (("36.5.0", True), ("36.5", True), ("36.4.7", True), ("36.4.0", False), ("36.50", False)):
        assert Machine(**{**vars(jetson), "l4t": release}).is_a(profile) is fits


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("orin-nano-jp62", "cortex-a78ae"),
        ("raspberry-pi-5", "raspberry-pi-5"),
        ("thor-jp70", "aarch64-cpu"),
        ("rtx-4090", "x86-cpu"),
    ],
)
def test_cpu_is_the_processor_of_this_machine(machine, name):
    assert resolve("cpu", EVERY, Machine.read(MACHINES / machine)).name == name


def test_cpu_of_a_machine_without_a_profile():
    with pytest.raises(DeviceError) as error:
        resolve("cpu", EVERY, Machine(arch="riscv64", cpu="CPU unknown"))
    assert str(error.value) == (
        "no CPU profile describes this machine: this machine is riscv64, CPU unknown; "
        "profiles that match it: none; add a file to devices/"
    )


def test_a_device_that_is_not_this_machine_is_refused():
    with pytest.raises(DeviceError) as error:
        resolve("jetson-orin-nano-jp62", EVERY, Machine.read(MACHINES / "orin-nano-jp72"))
    assert str(error.value).startswith("'jetson-orin-nano-jp62' is not this machine: this machine is aarch64")
    assert "profiles that match it: aarch64-cpu, cortex-a78ae, jetson-orin-nano-jp72; run it there" in str(error.value)
    with pytest.raises(UnknownName, match="did you mean .*'jetson-orin-nano-jp62' or 'jetson-orin-nano-jp72'"):
        resolve("jetson-orin-nano", EVERY, Machine.read(MACHINES / "orin-nano-jp62"))


def test_a_jetson_without_its_jetpack_is_that_with_the_newest():
    assert devices.load("jetson-orin-nano").name == "jetson-orin-nano-jp72"
    with pytest.raises(UnknownName):
        devices.load("jetson-orin")


@pytest.mark.parametrize("device", [d for d in EVERY if d.headline], ids=lambda d: d.name)
def test_the_figure_on_the_box_follows_from_units_clock_and_width(device):
    computed = device.peak("int8", device.headline.mode) * (2 if device.headline.sparse else 1) / 1e12
    assert computed == pytest.approx(device.headline.int8_tops, rel=0.03)


def test_peaks_are_those_of_the_mode_that_the_device_ships_in():
    orin = devices.load("jetson-orin-nano-jp62")
    assert orin.mode().name == "25W"
    assert orin.peak("int8") / 1e12 == pytest.approx(30.1, abs=0.05)
    assert orin.peak("int8", "7W") / 1e12 == pytest.approx(6.7, abs=0.05)  # half of the SMs are off
    assert orin.peak("fp8") is None
    with pytest.raises(UnknownName, match="no power mode of jetson-orin-nano-jp62 '25w': did you mean '25W'"):
        orin.mode("25w")


def test_every_table_with_numbers_names_its_source():
    """Any model of the profile with a number among its fields is a Sourced."""

    def numbers(model):
        return [n for n, f in model.model_fields.items() if any(t in str(f.annotation) for t in ("int", "float"))]

    tables = [model for model in vars(device_module).values() if hasattr(model, "model_fields")]
    assert len(tables) > 6
    assert all(
        issubclass(model, Sourced)
        for model in tables
        if model is not Sourced and numbers(model) and model is not Device
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('source = "NVIDIA Ada white paper: GDDR6X on 384 bits"', ""), "memory.source: Field required: every table"),
        (
            ('source = "NVIDIA Ada white paper: GDDR6X on 384 bits"', 'source = "?"'),
            "memory.source: String should have",
        ),
        (("gigabytes = 24", 'gigabytes = "much"'), "memory.gigabytes: Input should be a valid number"),
        (("shared = false", "shared = false\nspeed = 3"), "memory.speed: Extra inputs are not permitted"),
        (("[memory]", "[memory"), "device profile mine.toml cannot be read: "),
    ],
)
def test_a_profile_that_is_refused(edit, message, tmp_path):
    text = (Path(devices.__file__).parent / "rtx-4090.toml").read_text()
    assert edit[0] in text
    (tmp_path / "mine.toml").write_text(text.replace(*edit, 1))
    with pytest.raises(DeviceError) as error:
        Device.read(tmp_path / "mine.toml")
    assert message in str(error.value)


def test_versions_compare_by_number():
    assert version_key("10.3.0") == version_key("10.3") < version_key("10.14") < version_key("11.0")


def test_the_page_is_current():
    assert device_table.PAGE.read_text(encoding="utf-8") == device_table.page()


@pytest.mark.parametrize(
    ("machine", "runtime", "name"),
    [
        ("orin-nano-jp62", "onnxruntime", "jetson-orin-nano-jp62"),
        ("orin-nano-jp72", "tensorrt", "jetson-orin-nano-jp72"),
        ("orin-nano-jp72", "openvino", "cortex-a78ae"),
        ("thor-jp70", "onnxruntime", "jetson-thor-t5000-jp70"),
        ("thor-jp70", "openvino", "aarch64-cpu"),
        ("agx-orin-jp51", "tensorrt", "jetson-agx-orin-64gb-jp51"),
        ("raspberry-pi-5", "onnxruntime", "raspberry-pi-5"),
        ("rtx-4090", "onnxruntime", "x86-cpu"),  # which does not compute on the card
        ("rtx-4090", "tensorrt-rtx", "rtx-4090"),
        ("h200", "tensorrt", "h200-sxm"),
        ("h200", "onnxruntime", "x86-cpu"),
    ],
)
def test_auto_is_what_computes_on_this_machine(machine, runtime, name):
    assert resolve("auto", EVERY, Machine.read(MACHINES / machine), runtime).name == name


@pytest.mark.parametrize(
    ("compatible", "l4t", "name"),  # compatible strings are those of the kernel's device trees
    [
        ("nvidia,p3768-0000+p3767-0000-super nvidia,p3767-0000 nvidia,tegra234", "36.4.4", "jetson-orin-nx-16gb-jp62"),
        ("nvidia,p3737-0000+p3701-0005 nvidia,p3701-0005 nvidia,tegra234", "35.4.1", "jetson-agx-orin-64gb-jp51"),
        ("nvidia,p4071-0000+p3834-0008 nvidia,p3834-0008 nvidia,tegra264", "38.2.0", "jetson-thor-t5000-jp70"),
        ("nvidia,p3509-0000+p3668-0001 nvidia,tegra194", "32.7.4", "jetson-xavier-nx-jp46"),
        ("nvidia,p2972-0000 nvidia,tegra194", "35.3.1", "jetson-agx-xavier-jp51"),
        ("nvidia,p3450-0000 nvidia,tegra210", "32.7.1", "jetson-nano-jp46"),
        ("nvidia,p3740-0002+p3701-0008 nvidia,p3701-0008 nvidia,tegra234", "36.3", "igx-orin-sw10"),
        ("nvidia,p3737-0000+p3701-0008 nvidia,p3701-0008", "36.3.0", "jetson-agx-orin-industrial-jp60"),
    ],
)
def test_every_family_of_jetson_is_recognised(compatible, l4t, name):
    machine = Machine(arch="aarch64", cpu="", compatible=tuple(compatible.split()), l4t=l4t)
    assert resolve("auto", EVERY, machine, "tensorrt").name == name
    assert resolve("cpu", EVERY, machine).name == "aarch64-cpu"


# Boards in the pattern of the kernel's device trees: carrier and module, module, chip.
BOARDS = {
    "agx-orin-32gb": "p3737-0000+p3701-0004 p3701-0004 tegra234",
    "agx-orin-64gb": "p3737-0000+p3701-0000 p3701-0000 tegra234",
    "agx-orin-industrial": "p3737-0000+p3701-0008 p3701-0008 tegra234",
    "agx-xavier": "p2972-0000 tegra194",
    "nano": "p3450-0000 tegra210",
    "orin-nano": "p3768-0000+p3767-0003 p3767-0003 tegra234",
    "orin-nano-4gb": "p3768-0000+p3767-0004 p3767-0004 tegra234",
    "orin-nx-16gb": "p3768-0000+p3767-0000 p3767-0000 tegra234",
    "orin-nx-8gb": "p3768-0000+p3767-0001 p3767-0001 tegra234",
    "thor-t4000": "p4071-0000+p3834-0000 p3834-0000 tegra264",
    "thor-t5000": "p4071-0000+p3834-0008 p3834-0008 tegra264",
    "tx2": "p2771-0000 tegra186",
    "xavier-nx": "p3509-0000+p3668-0000 tegra194",
}
RELEASES = {
    "jp46": "32.7.1 32.7.4 32.7.6", "jp51": "35.2.1 35.3.1 35.4.1 35.5.0 35.6.0 35.6.1", "jp60": "36.3.0",
    "jp61": "36.4.0", "jp62": "36.4.3 36.4.4 36.4.7 36.5.0", "jp70": "38.2.0 38.2.1 38.2.2", "jp71": "38.4.0",
    "jp72": "39.2.0 39.2.1",
}  # fmt: skip


@pytest.mark.parametrize("name", [each for each in devices.names() if each.startswith("jetson-")])
def test_every_jetson_is_recognised_under_every_release(name, tmp_path):
    """From files as they lie there, by its module and JetPack, and no other Jetson is taken for it."""
    if devices.load(name).recognise.unread:
        return
    module, _, jetpack = name.removeprefix("jetson-").rpartition("-")
    for folder in ("proc/device-tree", "etc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd42\n")
    strings = "".join(f"nvidia,{each}\0" for each in BOARDS[module].split())
    (tmp_path / "proc/device-tree/compatible").write_text(strings)
    for release in RELEASES[jetpack].split():
        major, _, revision = release.partition(".")
        line = f"# R{major} (release), REVISION: {revision}, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
        (tmp_path / "etc/nv_tegra_release").write_text(line)
        machine = Machine.read(tmp_path)
        assert [each for each in here(EVERY, machine) if each.startswith("jetson-")] == [name]
        assert resolve("auto", EVERY, machine, "tensorrt").name == name


def test_what_a_machine_says_of_itself_is_never_guessed():
    """A profile whose machine has not been read is asked for from elsewhere, and taken for none."""
    unread = [device.name for device in EVERY if device.recognise.unread]
    assert unread == ["igx-thor", "jetson-thor-t2000-jp72", "jetson-thor-t3000-jp72"]
    thor = Machine(arch="aarch64", cpu="", compatible=("nvidia,tegra264",), l4t="39.2.1")
    assert here(EVERY, thor) == ["aarch64-cpu"]


def test_the_announced_thors_reach_what_was_announced():
    """In sparse FP4: 865 TFLOPS at the clock that is known, of T2000 at a higher one than that."""
    t3000, t2000 = devices.load("jetson-thor-t3000"), devices.load("jetson-thor-t2000")
    assert 2 * t3000.peak("fp4") / 1e12 == pytest.approx(865, abs=1)
    assert 2 * t2000.peak("fp4") / 1e12 == pytest.approx(400 * 702 / 763, abs=1)


def test_no_two_boards_or_cards_are_the_same_machine():
    """A module under one release of Jetson Linux, or a card of one name, has one profile."""
    seen = {}
    for device in EVERY:
        asked = device.recognise
        for key in [(each, l4t) for each in asked.compatible for l4t in asked.l4t] + list(asked.gpus):
            assert seen.setdefault(key, device.name) == device.name


@pytest.mark.parametrize("answer", ["NVIDIA H200\n", None])
def test_cards_that_only_nvidia_smi_names(answer, monkeypatch, tmp_path):
    """Its answer is that of the recorded H200; a machine without the program has no cards."""
    program = tmp_path / "smi"
    if answer:
        program.write_text(f"#!/bin/sh\nprintf '{answer}'")
        program.chmod(0o755)
    monkeypatch.setattr(machine_module, "NVIDIA_SMI", (str(program),))
    monkeypatch.setattr(machine_module, "_in_driver", lambda root: ())
    assert Machine.read().gpus == (("NVIDIA H200",) if answer else ())


PLAUSIBLE = {"fp32": (0.1e12, 120e12), "fp16": (0.2e12, 1000e12), "int8": (1e12, 2000e12), "fp8": (10e12, 2000e12)}


@pytest.mark.parametrize("device", [d for d in EVERY if d.kind == "gpu"], ids=lambda d: d.name)
def test_facts_are_in_their_units(device):
    """T/s, GB, GB/s, MHz: a slip by a thousand, or of bits for bytes, is out of these ranges."""
    assert device.sm and device.modes
    assert [mode.default for mode in device.modes].count(True) == 1
    assert device.memory is None or 2 <= device.memory.gigabytes <= 192
    for mode in device.modes:
        assert 300 <= mode.mhz <= 3000 and 1 <= mode.units <= 200 and 20 <= mode.bandwidth_gbs <= 8000
        assert mode.cpu_mhz is None or 600 <= mode.cpu_mhz <= 3000
        for precision, (least, most) in PLAUSIBLE.items():
            assert (peak := device.peak(precision, mode.name)) is None or least <= peak <= most
    for precision in ("int8", "fp8", "fp4"):  # a rate for what it computes with, and for nothing else
        assert (getattr(device.compute[0], precision) is not None) == (precision in device.precisions)


def test_the_rows_of_the_research_that_surprise():
    """AGX Orin 64 GB ships at a fourteenth of the TOPS on its box; Orin NX at 25 W computes a third more than at 15."""
    agx = devices.load("jetson-agx-orin-64gb-jp62")
    assert agx.peak("int8") / 1e12 == pytest.approx(20.1, abs=0.1)
    nx = devices.load("jetson-orin-nx-16gb-jp61")
    assert nx.peak("int8", "25W") / nx.peak("int8", "15W") == pytest.approx(1.33, abs=0.01)
    assert devices.load("jetson-thor-t5000-jp72").peak("fp4", "MAXN") / 1e12 == pytest.approx(1032, abs=1)


def test_the_roof_of_a_processor_with_a_profile_of_its_own(tmp_path):
    """Its live clock and cores, and the profile's bandwidth: nvpmodel is a Jetson's."""
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_max_freq").write_text("1500000\n")
    found = roof(devices.load("raspberry-pi-5"), Machine.read(MACHINES / "raspberry-pi-5"), "int8", tmp_path)
    assert found.bandwidth == pytest.approx(17.1e9)
    assert found.operations == cores_available(tmp_path) * 1500e6 * 64
