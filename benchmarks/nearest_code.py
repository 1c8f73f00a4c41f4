"""The search in a codebook: all distances at once, the blocks of `NearestCode`, and PyTorch, in time and in memory.

    PYTHONPATH=. python benchmarks/nearest_code.py --widths 8 16 64 256 [--codes 16384] [--tokens 1024] [--threads 2]

Times: all sides in one process, in turns; a ratio is the median over the rounds of (all distances / the side) with its
95 % interval: above 1, the side is the faster. Memory: a process for each side, what it holds at most (VmHWM) beyond
what it held once the codebook was loaded and a few codes had been searched: on the first run, and on five more, where
ONNX Runtime lays out its buffers a second time. Linux with glibc only.

Sides: "distances" is |x|^2 - 2 x c + |c|^2 as published code computes it, then ArgMin; "products" the same without what
does not change the order, MatMul, Add, ArgMax; "native" is NearestCode in C++, "torch" is torch.cdist and argmin.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgetok import native, plugins, statistics, timing
from edgetok.graph import IR_VERSION, OPSET, Emitter

SIDES = ("distances", "products", "NearestCode", "native", "torch")
Search = Callable[[np.ndarray], np.ndarray]


def codebook(codes: int, width: int) -> np.ndarray:
    """Seeded rows (codes, width)."""
    return np.random.default_rng(codes + width).standard_normal((codes, width)).astype(np.float32)


def written(op: Emitter, x: ir.Value, rows: np.ndarray, side: str) -> ir.Value:
    """One of the graphs."""
    lengths = np.square(rows).sum(axis=1)
    if side in ("NearestCode", "native"):
        return op.NearestCode(x, rows, lengths / -2, domain="edgetok")
    if side == "products":
        return op.ArgMax(op.Add(op.MatMul(x, rows.T), lengths / -2), axis=2, keepdims=0)
    own = op.ReduceSumSquare(x, np.array([2]))
    distances = op.Sub(op.Add(own, lengths), op.Mul(op.MatMul(x, rows.T), np.float32(2)))
    return op.ArgMin(distances, axis=2, keepdims=0)


def search(side: str, rows: np.ndarray, threads: int) -> Search:
    """x (1, N, d) to ids (1, N)."""
    if side == "torch":
        import torch

        torch.set_num_threads(threads)
        held = torch.from_numpy(rows)
        return lambda x: torch.cdist(torch.from_numpy(x), held).argmin(dim=-1).numpy()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", "n", rows.shape[1]]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="search")
    ids = written(Emitter(graph), x, rows, side)
    ids.name, ids.type, ids.shape = "ids", ir.TensorType(ir.DataType.INT64), ir.Shape(["batch", "n"])
    graph.outputs.append(ids)
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if side == "native":
        options.register_custom_ops_library(str(native.library()))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return lambda x: session.run(None, {"x": x})[0]


def megabytes(what: str) -> float:
    """Of this process: VmRSS now, VmHWM since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) * 1024 / 1e6


def peaks(side: str, codes: int, width: int, tokens: int, threads: int) -> tuple[float, float]:
    """Megabytes on the first run and on all of six; to be called in a process of its own."""
    x = np.random.default_rng(0).standard_normal((1, tokens, width)).astype(np.float32)
    search(side, codebook(768, width), threads)(x)  # code and threads are there from here on
    run = search(side, codebook(codes, width), threads)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading gave back is not there to be used again
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = megabytes("VmRSS")
    run(x)
    first = megabytes("VmHWM")
    for _ in range(5):
        run(x)
    return first - before, megabytes("VmHWM") - before


def apart(side: str, *numbers: int) -> tuple[float, float]:
    """`peaks` in a process of its own."""
    command = [sys.executable, __file__, "--one", side, *map(str, numbers)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, all_runs = map(float, told.split())
    return first, all_runs


def table(codes: int, width: int, tokens: int, threads: int, rounds: int) -> None:
    """Print a width's lines."""
    x = np.random.default_rng(0).standard_normal((1, tokens, width)).astype(np.float32)
    runs = {side: search(side, codebook(codes, width), threads) for side in SIDES}
    wanted = runs["distances"](x)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, run in runs.items():
            clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
            times[side].append(median(timing.sample(partial(run, x), 4, clock=clock)[1:]))
    for side, own in times.items():
        ratio = statistics.ratio(list(zip(times["distances"], own, strict=True)))
        first, later = apart(side, codes, width, tokens, threads)
        other = int((runs[side](x) != wanted).sum())
        print(f"| {width} | {side} | {median(own):.1f} | {ratio} | {first:.1f} | {later:.1f} | {other} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 64, 256])
    parser.add_argument("--codes", type=int, default=16384)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(*peaks(chosen.one[0], *map(int, chosen.one[1:])))
        return
    print(f"{chosen.codes} codes, {chosen.tokens} tokens: {chosen.codes * chosen.tokens * 4 / 1e6:.1f} MB of distances")
    print("\n| channels | side | ms | times as fast as distances | first run, MB | later, MB | other ids |")
    print("|---|---|---|---|---|---|---|")
    for width in chosen.widths:
        table(chosen.codes, width, chosen.tokens, chosen.threads, chosen.rounds)


if __name__ == "__main__":
    main()
