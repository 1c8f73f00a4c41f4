"""The NEON kernels, compiled for ARM and run by an emulator; and this machine's own kernels by the same program."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edgetok import native_build

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "plugins" / "native"
ARM = "aarch64-linux-gnu-g++"


def compare(compiler: str, machine: str, folder: Path, *runner: str) -> list[str]:
    """Lines such as `neon differs by 3e-07`, one for each instruction set that could be compared with portable C++."""
    program = folder / "compare"
    objects = []
    for source in sorted(SOURCES.glob("*.cpp")):
        if source.stem == "weights" or source.stem.startswith("kernel_"):  # the others call ONNX Runtime
            objects.append(folder / f"{source.stem}.o")
            flags = (*native_build.FLAGS, *native_build.INSTRUCTIONS.get((machine, source.stem), ()))
            subprocess.run([compiler, *flags, "-c", source, "-o", objects[-1]], check=True)
    main = ROOT / "tests" / "native" / "compare_kernels.cpp"
    subprocess.run([compiler, "-std=c++20", "-static", f"-I{SOURCES}", main, *objects, "-o", program], check=True)
    done = subprocess.run([*runner, program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.full
def test_neon_equals_portable(tmp_path: Path) -> None:
    missing = [tool for tool in (ARM, "qemu-aarch64") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: apt install g++-aarch64-linux-gnu qemu-user")
    assert [line.split()[0] for line in compare(ARM, "aarch64", tmp_path, "qemu-aarch64")] == ["neon"]


@pytest.mark.full
def test_kernels_equal_portable(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    compare("g++", platform.machine(), tmp_path)
