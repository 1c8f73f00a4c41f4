"""The machine's description, from this machine and from what other machines have in /proc and /sys."""

import os
import platform
import subprocess
import sys

import pytest

from edgetok import fingerprint
from edgetok.fingerprint import cores_available, cpu_features, cpu_model, cpu_quota, environment, tool_versions

ORIN_CORE = """processor\t: {n}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""
X86_CORE = """processor\t: {n}
model name\t: AMD Ryzen 9 7950X 16-Core Processor
flags\t\t: fpu sse2 sse4_1 sse4_2 ssse3 avx avx2 fma f16c sme sev smep avx512f avx512_vnni avx_vnni bf16 amx_tile{more}

"""


@pytest.fixture
def machine(tmp_path):
    """Lay out files as another machine has them."""

    def write(files: dict[str, str]):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_arm(machine):
    root = machine(
        {
            "proc/cpuinfo": "".join(ORIN_CORE.format(n=n) for n in range(6)),
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400\n",
            "sys/devices/system/cpu/cpu4/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu4/cpufreq/scaling_max_freq": "1728000\n",
        }
    )
    assert cpu_features(root) == ("asimd", "asimddp", "asimdhp", "asimdrdm", "fphp")
    assert cpu_model(root) == "implementer 0x41 part 0xd42"
    described = environment(root)
    assert described.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert described.governors == ("performance", "schedutil")
    assert described.max_mhz == 1728


def test_x86_features_are_those_of_every_core_and_choose_kernels(machine):
    root = machine({"proc/cpuinfo": X86_CORE.format(n=0, more=" avx512_fp16") + X86_CORE.format(n=1, more="")})
    expected = "amx_tile avx avx2 avx512_vnni avx512f avx_vnni f16c fma sse4_1 sse4_2"
    assert cpu_features(root) == tuple(expected.split())
    assert cpu_model(root) == "AMD Ryzen 9 7950X 16-Core Processor"


def test_a_machine_that_says_nothing(tmp_path):
    described = environment(tmp_path)
    assert described.cpu_features == () and described.governors == ()
    assert described.cpu_quota is None and described.max_mhz is None and described.board is None
    assert described.cpu


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/outer/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
            },
            0.5,
        ),
    ],
)
def test_quota(machine, files, quota):
    root = machine(files)
    assert cpu_quota(root) == quota
    cores = len(os.sched_getaffinity(0))
    assert cores_available(root) == (cores if quota is None else max(1, min(cores, int(quota))))


def test_memory_limit_of_the_group(machine):
    root = machine({"sys/fs/cgroup/memory.max": "104857600\n"})
    assert environment(root).memory_bytes == 104857600


def test_this_machine():
    described = environment()
    assert described.machine == platform.machine()
    assert described.python == platform.python_version()
    assert described.cores == len(os.sched_getaffinity(0))
    assert described.memory_bytes > 2**28
    assert described == environment(), "nothing in it changes from call to call"
    assert fingerprint.Environment.model_validate_json(described.model_dump_json()) == described


def test_versions_import_nothing():
    program = "import sys; from edgetok.fingerprint import tool_versions; tool_versions(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnx_ir", "onnxruntime", "transformers", "numpy"} & set(loaded)


def test_versions_are_those_installed():
    import numpy
    import onnx

    from edgetok import __version__

    versions = tool_versions()
    assert (versions["edgetok"], versions["numpy"], versions["onnx"]) == (
        __version__,
        numpy.__version__,
        onnx.__version__,
    )
    assert versions["onnxruntime-gpu"] is None or versions["onnxruntime-gpu"][0].isdigit()
