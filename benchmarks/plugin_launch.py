"""Runs on a GPU exactly what TensorRT was told to launch, and compares it with the operator's reference.

    python benchmarks/plugin_launch.py launches.json      # on a machine with a GPU: torch and numpy, no TensorRT

launches.json is what NVIDIA's own `tensorrt.plugin` made of the plugin nodes (tests/tensorrt/bindings.py, for
`--record` below): entry, PTX, grid, block, shared memory and scalars. They go to the driver as TensorRT passes them:
inputs, scalars, outputs.

    python benchmarks/plugin_launch.py --record launches.json [VERSION]      # anywhere: makes the file
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

SHAPES = [[[3, 31, 8], [3, 12]], [[32, 197, 768], [32, 184]], [[1, 197, 384], [1, 1]], [[2, 9, 130], [2, 9]]]


def record(file: Path, version: str) -> None:
    """Let NVIDIA's Python of that version compute the launches of KeepTokens."""
    from tests.tensorrt import installed
    from tests.test_tensorrt_plugins import NODE

    one = {"operator": "KeepTokens", "attributes": NODE.attributes(), "types": ["float", "int64"]}
    script = [sys.executable, "-W", "ignore", str(installed.HERE / "bindings.py")]
    text, own = json.dumps([one | {"shapes": shapes} for shapes in SHAPES]), installed.bindings(version)
    done = subprocess.run(script, input=text, env=own, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    nodes = [one | {"shapes": shapes} for one, shapes in zip(told["nodes"], SHAPES, strict=True)]
    file.write_text(json.dumps({"version": told["version"], "operator": "KeepTokens", "nodes": nodes}))


def checked(error: int, what: str) -> None:
    """Stop at a driver's error."""
    if error:
        raise SystemExit(f"{what} gave CUDA error {error}")


def play(file: Path) -> None:
    """Launch each recorded kernel, compare it and time it."""
    import torch

    from edgetok.plugins import keep_tokens

    told = json.loads(file.read_text())
    cuda = ctypes.CDLL("libcuda.so.1")
    torch.zeros(1, device="cuda")  # makes the context that the driver's calls work in
    print(f"{torch.cuda.get_device_name()}, launches by TensorRT {told['version']}, operator {told['operator']}")
    print(f"{'sizes':34} {'grid':>14} {'worst error':>12} {'us':>8} {'of torch':>9}")
    for node in told["nodes"]:
        (batch, count, width), (_, kept) = node["shapes"]
        seeded = torch.Generator().manual_seed(count)
        x = torch.randn(batch, count, width, generator=seeded)
        order = torch.stack([torch.randperm(count, generator=seeded)[:kept] for _ in range(batch)])
        wanted = keep_tokens.reference(x, order)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        image = node["ptx"].encode() + b"\0"
        checked(cuda.cuModuleLoadDataEx(ctypes.byref(module), image, 0, None, None), "cuModuleLoadDataEx")
        name = node["kernel"].encode()
        checked(cuda.cuModuleGetFunction(ctypes.byref(function), module, name), "cuModuleGetFunction")
        (_, shape), *_ = node["outputs"]
        x, order = x.cuda(), order.cuda()
        result = torch.full(shape, torch.nan, device="cuda")
        held = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, order)]
        held += [ctypes.c_int32(scalar) for scalar in node["scalars"]] + [ctypes.c_void_p(result.data_ptr())]
        arguments = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        launch = node["launch"]
        sizes = [launch[f"{kind}_{axis}"] for kind in ("grid", "block") for axis in "xyz"]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

        def run(function=function, sizes=sizes, launch=launch, stream=stream, arguments=arguments) -> None:
            checked(
                cuda.cuLaunchKernel(function, *sizes, launch["shared_mem"], stream, arguments, None), "cuLaunchKernel"
            )

        run()
        error = (result.cpu() - wanted).abs().max().item()
        ours, theirs = timed(run), timed(lambda x=x, order=order: keep_tokens.reference(x, order))
        grid = "x".join(map(str, sizes[:3]))
        print(f"{node['shapes']!s:34} {grid:>14} {error:12.3g} {ours:8.2f} {ours / theirs:9.2f}")
        if not error == 0:
            raise SystemExit("KeepTokens copies: any error is a wrong launch")


def timed(call, runs: int = 200) -> float:
    """Microseconds of one call, by device events over many."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(20):
        call()
    start.record()
    for _ in range(runs):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e3 / runs


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "11.4.0.106")
    elif len(sys.argv) == 2:
        play(Path(sys.argv[1]))
    else:
        raise SystemExit(__doc__)
