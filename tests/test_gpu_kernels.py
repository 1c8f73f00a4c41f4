"""The Triton kernels without a GPU: every operator x every case under Triton's interpreter, and compiled to PTX.

Triton is installed at test time into the cache of the tests: as a dependency it would fight with torch's own pin. On a
card tests/test_on_a_card.py runs the same cases.
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
    import inspect, json, sys
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
            wanted = plugins.load(name).reference(*exact)
            for sm in (75, 80, 90) if "sm" in inspect.signature(gpu.load(name).launches).parameters else (80,):
                made, got = gpu.launches(name, sm)(*given)
                for launch in made:
                    launch()
                got = got[0] if len(got) == 1 else got
                pairs = zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (wanted, got)), strict=True)
                for number, (want, have) in enumerate(pairs):
                    if want.is_floating_point():
                        error = float((want - have).abs().max() / want.abs().max().clamp_min(1e-30))
                    else:
                        error = int((want != have).sum())
                    told.append([case, f"{kind}, {sm}", number, str(want.dtype), error])
    print(json.dumps(told))
"""
SPOILT = """
    told = []
    for name in gpu.names():
        several = (case for _, case in plugins.load(name).cases() if len(case[0]) > 1)
        given = min(several, key=lambda case: case[0].numel())
        batched = [at for at, x in enumerate(given) if torch.is_tensor(x) and x.is_floating_point() and x.dim() > 1
                   and len(x) == len(given[0]) and (name != "lut_matmul" or at == 0)]
        clean = gpu.run(name)(*given)
        for at in batched:
            for value in (float("nan"), -float("inf")):
                bad = [x.clone() if torch.is_tensor(x) else x for x in given]
                bad[at][1] = value
                got = gpu.run(name)(*bad)
                for was, now in zip(*((x,) if torch.is_tensor(x) else x for x in (clean, got)), strict=True):
                    alone = torch.equal(now[0], was[0]) and torch.equal(now[2:], was[2:])
                    chosen = [] if now.is_floating_point() else now[1].tolist()
                    told.append([name, at, value, alone, chosen])
    print(json.dumps(told))
"""
GUARDED = """
    import dataclasses, math
    from tests.guarded import guarded

    def outputs(given, at_end):
        made, results = gpu.launches(name, 80)(*given)
        copies = {}

        def copy(value):
            if not torch.is_tensor(value):
                return value
            key = value.data_ptr(), value.dtype, value.shape, value.stride()  # one launch writes what the next reads
            return copies[key] if key in copies else copies.setdefault(key, guarded(value, at_end))

        for launch in made:
            arguments = {key: copy(value) for key, value in launch.arguments.items()}
            dataclasses.replace(launch, arguments=arguments)()
        return [copy(value) for value in results]

    name, told = sys.argv[1], []
    for case, given in plugins.load(name).cases():
        if sum(math.prod(launch.grid) for launch in gpu.launches(name, 80)(*given)[0]) <= 64:  # quickly
            first, last, halves = outputs(given, False), outputs(given, True), outputs(tuple(map(half, given)), True)
            whole = all(x.isfinite().all().item() for x in first + halves)
            told.append([case, all(map(torch.equal, first, last)), whole])
    print(json.dumps(told))
"""
COMPILED = """
    name, cases, told, seen = sys.argv[1], list(plugins.load(sys.argv[1]).cases()), [], set()
    for _, given in cases if sys.argv[2] == "every case" else cases[:1]:
        for tensors in (given, tuple(map(half, given))):
            for sm in map(int, sys.argv[3:]):
                for launch in gpu.launches(name, sm)(*tensors)[0]:
                    kinds = [value.dtype if torch.is_tensor(value) else None for value in launch.arguments.values()]
                    one = sm, launch.kernel.__name__, str(launch.constants), str(kinds)
                    if one not in seen:
                        told.append([sm, launch.kernel.__name__, launch.ptx(sm)])
                    seen.add(one)
    print(json.dumps(told))
"""


def apart(script: str, *arguments: str, **environment: str) -> list[list[object]]:
    """What a process with Triton prints; here it is not imported, since the interpreter is chosen at its import."""
    folder = installed.package(TRITON)
    own = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(folder)]), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-c", dedent(COMMON) + dedent(script), *arguments]
    ran = subprocess.run(command, env={**os.environ, **own, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr[-2000:]}"
    told: list[list[object]] = json.loads(ran.stdout)
    return told


@pytest.mark.parametrize("name", gpu.names())
def test_kernels_equal_the_reference(name: str) -> None:
    """In fp32 and on the same values in fp16: choices exactly, sums within rounding; with all cards' tiles."""
    assert name in plugins.names()
    told = apart(INTERPRETED, name, TRITON_INTERPRET="1")
    cases = {case for case, _ in plugins.load(name).cases()}
    assert {case for case, *_ in told} == cases
    for case, kind, number, dtype, error in told:
        allowed = 0 if "int" in str(dtype) else 2e-6 if str(kind).startswith("fp32") else 1e-3
        assert isinstance(error, int | float) and error <= allowed, (case, kind, number, error)


def test_a_sample_that_is_not_finite_stays_alone() -> None:
    """The others keep every bit; what it chooses itself are tokens that are there, each once."""
    for name, at, value, alone, chosen in apart(SPOILT, TRITON_INTERPRET="1", PYTHONWARNINGS="ignore"):
        assert alone, (name, at, value)
        assert isinstance(chosen, list) and all(0 <= token < 31 for token in chosen), (name, at, value, chosen)
        if name != "bipartite_match":  # there several may have the same match
            assert len(set(chosen)) == len(chosen), (name, at, value, chosen)


@pytest.mark.parametrize("name", gpu.names())
def test_kernels_stay_within_their_tensors(name: str) -> None:
    """No tensor is read or written outside, to the element: its memory ends at pages that cannot be touched."""
    told = apart(GUARDED, name, TRITON_INTERPRET="1")
    assert len(told) >= 3
    for case, same, whole in told:
        assert same and whole, case


def check_ptx(name: str, cases: str, *sms: int) -> None:
    for sm, kernel, ptx in apart(COMPILED, name, cases, *map(str, sms)):
        assert isinstance(sm, int) and isinstance(ptx, str)
        major, minor = divmod(gpu.PTX[sm], 10)
        assert f".version {major}.{minor}\n" in ptx
        assert re.search(rf"\.target sm_{sm}a?\b", ptx)
        assert f".entry {kernel}(" in ptx


@pytest.mark.parametrize("name", gpu.names())
def test_kernels_compile_for_orin(name: str) -> None:
    """Every form of every case for compute capability 8.7, in a PTX version that JetPack 6's driver reads."""
    check_ptx(name, "every case", 87)


@pytest.mark.more
@pytest.mark.parametrize("name", gpu.names())
def test_kernels_compile_for_every_target(name: str) -> None:
    """For each compute capability, in a PTX version that its oldest driver reads."""
    check_ptx(name, "one case", *gpu.PTX)


def test_what_is_compiled_ahead_reads_sixteen_bytes_at_once() -> None:
    """As Triton does by itself where it compiles as it launches; of what is no multiple of 16 nothing is promised."""
    script = """
        def told(name, *given):
            (launch,), _ = gpu.load(name).launches(*given)
            return launch.ptx(87), sorted(launch.even())

        def look_up(rows, inner):
            codes, scales = torch.zeros(48, inner // 2, dtype=torch.uint8), torch.ones(48, inner // 16, 1)
            return torch.ones(rows, inner).half(), codes, torch.ones(1, 1, 16), scales.half(), 4, inner

        q, idx = torch.ones(1, 2, 128, 64).half(), torch.zeros(1, 2, 2, 2, dtype=torch.int32)
        attend = q, q.clone(), q.clone(), idx, idx[..., 0], torch.zeros(1, 1), 64, 64, 0.125, 0, -1, 0
        print(json.dumps([
            told("block_sparse_attention", *attend), told("lut_matmul", *look_up(1, 64)),
            told("lut_matmul", *look_up(20, 64)), told("lut_matmul", *look_up(20, 80 + 16 * 4)),
        ]))
    """
    attend, one, many, odd = apart(script)
    assert len(re.findall(r"cp\.async\.cg\.shared\.global .*, 0x10", str(attend[0]))) >= 8
    assert {"q", "k", "v", "q_row", "k_row", "v_row"} <= set(attend[1])  # type: ignore[call-overload]
    for ptx, even in (one, many):
        assert re.search(r"ld\.global\.v4", str(ptx)) and {"x", "codes", "K"} <= set(even)  # type: ignore[call-overload]
    assert "GROUPS" not in odd[1] and "scales" not in odd[1]  # type: ignore[operator]


def test_codes_of_eight_bits() -> None:
    """Which no case has, since the operator in C++ takes them not."""
    script = """
        codes, scales = torch.randint(0, 256, (6, 40), dtype=torch.uint8), torch.rand(6, 5, 1)
        given = torch.randn(1, 40), codes, torch.randn(1, 1, 256), scales, 8, 40
        wanted, got = plugins.load("lut_matmul").reference(*given), gpu.run("lut_matmul")(*given)
        print(json.dumps([[float((wanted - got).abs().max() / wanted.abs().max())]]))
    """
    ((error,),) = apart(script, TRITON_INTERPRET="1")
    assert isinstance(error, float) and error <= 2e-6


OLD_CARD = """
    def look_up(rows, inner, outputs):
        codes = torch.randint(0, 256, (outputs, inner // 2), dtype=torch.uint8)
        scales = torch.rand(outputs, inner // 16, 1)
        return torch.randn(rows, inner).half(), codes, torch.randn(1, 1, 16).half(), scales.half(), 4, inner
"""


@pytest.mark.more
def test_no_registers_spill_without_tensor_cores() -> None:
    """On compute capability 7.5, by the ptxas that comes with Triton; the tiles are smaller there."""
    script = """
        import pathlib, subprocess, tempfile, triton
        ptxas = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
        for rows in (1, 16, 197):
            (launch,), _ = gpu.launches("lut_matmul", 75)(*look_up(rows, 4096, 4096))
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "kernel.ptx"
                file.write_text(launch.ptx(75))
                command = [ptxas, "-v", "-arch=sm_75", file, "-o", file.with_suffix(".cubin")]
                told.append([rows, subprocess.run(command, check=True, capture_output=True, text=True).stderr])
        print(json.dumps(told))
    """
    for rows, said in apart(dedent(OLD_CARD) + "told = []\n" + dedent(script)):
        assert "0 bytes spill stores, 0 bytes spill loads" in str(said), (rows, said)


@pytest.mark.more
@pytest.mark.parametrize("rows", [1, 3, 16, 70])
def test_tiles_without_tensor_cores(rows: int) -> None:
    """Those of compute capability 7.5 give the reference's product too."""
    script = """
        given = look_up(int(sys.argv[1]), 80, 41)
        (launch,), (got,) = gpu.launches("lut_matmul", 75)(*given)
        launch()
        exact = [x.double() if x.is_floating_point() else x for x in given[:4]]
        wanted = plugins.load("lut_matmul").reference(*exact, *given[4:])
        print(json.dumps([[float((wanted - got).abs().max() / wanted.abs().max())]]))
    """
    ((error,),) = apart(dedent(OLD_CARD) + dedent(script), str(rows), TRITON_INTERPRET="1")
    assert isinstance(error, float) and error <= 1e-3


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
    assert "blocks of 12 weights: the kernel takes multiples of 8" in str(told)
