"""The least time of a run: counted work, peaks of power modes, what binds."""

from pathlib import Path

import pytest

import edgetok
from edgetok import devices
from edgetok.machine import Machine
from edgetok.roofline import Roof, Roofline, Work, roof, work
from tests.test_memory import linear

WIDTH = 64
ORIN = devices.load("jetson-orin-nano-jp62")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of two linear layers: in fp32, in four bits, and as they were, without the shapes in between."""
    folder = tmp_path_factory.mktemp("roofline")
    linear(folder / "layers.onnx", width=WIDTH, layers=2)
    made = {"as it was": folder / "layers.onnx"}
    for name, quantize in (("fp32", []), ("int4", ["int4"])):
        bundle = edgetok.export(str(folder / "layers.onnx"), out=folder / name, quantize=quantize, min_cosine=0.5)
        made[name] = bundle.model_path
    return made


@pytest.mark.parametrize("batch", [1, 5])
def test_work_is_counted_per_batch(exported: dict[str, Path], batch: int) -> None:
    """2 x 64 x 64 operations a row and layer; weights once, inputs and outputs of 64 numbers a row."""
    done = work(exported["fp32"], batch)
    weights = 2 * 4 * WIDTH * WIDTH
    assert done == Work(operations=batch * 2 * 2 * WIDTH * WIDTH, bytes=weights + batch * 2 * 4 * WIDTH)
    assert work(exported["as it was"], batch) is None  # what is multiplied has no shape there


def test_weights_of_few_bits_count_as_many_operations_and_fewer_bytes(exported: dict[str, Path]) -> None:
    dense, packed = work(exported["fp32"], 1), work(exported["int4"], 1)
    assert dense is not None and packed is not None
    assert packed.operations == dense.operations and packed.bytes < dense.bytes / 4


def test_what_binds() -> None:
    """1 GFLOP and 1 MB at 1 TFLOP/s and 100 GB/s: 1 ms of arithmetic, 0.01 ms of memory; and the other way round."""
    peaks = Roof(operations=1e12, bandwidth=1e11, source="made up")
    found = Roofline.of("fp32", Work(operations=10**9, bytes=10**6), peaks, measured=4.0)
    assert (found.milliseconds, found.share, found.bound) == (pytest.approx(1.0), pytest.approx(0.25), "arithmetic")
    found = Roofline.of("fp32", Work(operations=10**6, bytes=10**9), peaks, measured=20.0)
    assert (found.milliseconds, found.share, found.bound) == (pytest.approx(10.0), pytest.approx(0.5), "memory")
    unknown = Roofline.of("fp32", Work(operations=1, bytes=1), None, measured=1.0)
    assert unknown.milliseconds is None and unknown.share is None


def test_a_jetson_is_held_against_the_mode_it_is_in(tmp_path: Path) -> None:
    """As nvpmodel writes it; without its file the mode that the board ships in, which is said."""
    machine = Machine(arch="aarch64", cpu="")
    shipped = roof(ORIN, machine, "fp16", tmp_path)
    assert shipped is not None and "the mode it ships in" in shipped.source
    assert shipped.operations == ORIN.peak("fp16")
    status = tmp_path / "var/lib/nvpmodel/status"
    status.parent.mkdir(parents=True)
    status.write_text("pmode:0000 fmode:quiet\n")
    live = roof(ORIN, machine, "fp16", tmp_path)
    slow = next(mode for mode in ORIN.modes if mode.id == 0)
    assert live is not None and live.operations == ORIN.peak("fp16", slow.name) < shipped.operations
    assert live.bandwidth == slow.bandwidth_gbs * 1e9 and "the mode it is in" in live.source


def test_a_processor_by_its_instructions_and_clock(tmp_path: Path) -> None:
    """The widest instructions that it has; none known without a clock."""
    device = devices.load("x86-cpu")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("vendor_id : x\ncpu MHz\t\t: 2000.0\ncpu MHz\t\t: 1500.0\n")
    flags = [frozenset(("avx2", "fma")), frozenset(("avx2", "fma", "avx512f", "avx512_vnni"))]
    narrow, wide = (roof(device, Machine("x86_64", "", flags=each), "fp32", tmp_path) for each in flags)
    assert narrow is not None and wide is not None
    assert wide.operations == 2 * narrow.operations and narrow.operations % (2000e6 * 32) == 0
    assert narrow.bandwidth is None
    zen4, zen5 = flags[1] | {"clzero"}, flags[1] | {"clzero", "avx_vnni"}
    for of_amd, as_wide in ((zen4, narrow), (zen5, wide)):
        found = roof(device, Machine("x86_64", "", flags=of_amd), "fp32", tmp_path)
        assert found is not None and found.operations == as_wide.operations and found.source.count("AMD") == 1
    assert roof(device, Machine("x86_64", "", flags=flags[0]), "fp32", tmp_path / "nothing") is None
    assert roof(device, Machine("x86_64", ""), "fp32", tmp_path) is None
