"""The Triton kernels without a GPU: every operator x every case under Triton's interpreter, and compiled to PTX.

Triton is installed at test time into the cache of the tests: as a dependency it would fight with torch's own pin. On a
card `benchmarks/gpu_kernels.py` runs the same cases.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from edgetok import plugins
from edgetok.plugins import gpu
from tests.tensorrt import installed

TRITON = "triton==3.9.0"
COMMON = """
    import json, sys
    import torch
    from edgetok import plugins
    from edgetok.plugins import gpu

    def half(value):
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.half() if floating else value
"""
INTERPRETED = """
    name, told = sys.argv[1], []
    for case, given in plugins.load(name).cases():
        for kind in ("fp32", "fp16"):
            given = given if kind == "fp32" else tuple(map(half, given))
            exact = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]
            wanted, got = plugins.load(name).reference(*exact), gpu.run(name)(*given)
            pairs = zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (wanted, got)), strict=True)
            for number, (want, have) in enumerate(pairs):
                if want.is_floating_point():
                    error = float((want - have).abs().max() / want.abs().max().clamp_min(1e-30))
                else:
                    error = int((want != have).sum())
                told.append([case, kind, number, str(want.dtype), error])
    print(json.dumps(told))
"""
COMPILED = """
    name, sms, told = sys.argv[1], map(int, sys.argv[2:]), []
    _, given = next(iter(plugins.load(name).cases()))
    launches = gpu.load(name).launches(*map(half, given))[0]
    for sm in sms:
        told += [[sm, launch.kernel.__name__, launch.ptx(sm)] for launch in launches]
    print(json.dumps(told))
"""


def apart(script: str, *arguments: str, **environment: str) -> list[list[object]]:
    """What a process with Triton prints; here it is not imported, since the interpreter is chosen at its import."""
    folder = installed.package(TRITON)
    own = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(folder)]), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-c", dedent(COMMON) + dedent(script), *arguments]
    ran = subprocess.run(command, env={**os.environ, **own, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told: list[list[object]] = json.loads(ran.stdout)
    return told


@pytest.mark.parametrize("name", gpu.names())
def test_kernels_equal_the_reference(name: str) -> None:
    """In fp32 and on the same values in fp16: choices exactly, sums within rounding of the type."""
    assert name in plugins.names()
    told = apart(INTERPRETED, name, TRITON_INTERPRET="1")
    cases = {case for case, _ in plugins.load(name).cases()}
    assert {case for case, *_ in told} == cases
    for case, kind, number, dtype, error in told:
        allowed = 0 if "int" in str(dtype) else 2e-6 if kind == "fp32" else 1e-3
        assert isinstance(error, int | float) and error <= allowed, (case, kind, number, error)


def check_ptx(name: str, *sms: int) -> None:
    for sm, kernel, ptx in apart(COMPILED, name, *map(str, sms)):
        assert isinstance(sm, int) and isinstance(ptx, str)
        major, minor = divmod(gpu.PTX[sm], 10)
        assert f".version {major}.{minor}\n" in ptx
        assert re.search(rf"\.target sm_{sm}a?\b", ptx)
        assert f".entry {kernel}(" in ptx


@pytest.mark.parametrize("name", gpu.names())
def test_kernels_compile_for_orin(name: str) -> None:
    """For compute capability 8.7, in a PTX version that JetPack 6's driver reads."""
    check_ptx(name, 87)


@pytest.mark.more
@pytest.mark.parametrize("name", gpu.names())
def test_kernels_compile_for_every_target(name: str) -> None:
    """For each compute capability, in a PTX version that its oldest driver reads."""
    check_ptx(name, *gpu.PTX)


def test_blocks_that_end_within_a_unit_are_refused() -> None:
    """Three bytes hold eight codes of 3 bits; a block of 12 of them would need two scales."""
    script = """
        codes, scales = torch.zeros(2, 9, dtype=torch.uint8), torch.ones(2, 2, 1)
        try:
            gpu.run("lut_matmul")(torch.ones(1, 24), codes, torch.ones(1, 1, 8), scales, 3, 24)
        except ValueError as error:
            print(json.dumps([[str(error)]]))
    """
    ((told,),) = apart(script, TRITON_INTERPRET="1")
    assert "multiples of 8 at 3 bits" in str(told)
