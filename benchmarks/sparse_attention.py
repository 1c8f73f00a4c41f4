"""Attention over listed blocks against ONNX Runtime's dense attention, in time and in memory.

    PYTHONPATH=. python benchmarks/sparse_attention.py --tokens 1024 4096 --densities 0.25 0.5 1 [--threads 2]

Times: all sides of a line in one process, in turns, with one thread in processor time; a ratio is the median over the
rounds of (dense / the side) with its 95 % interval: above 1, the side is the faster. Memory: a process for each side,
what it holds at most (VmHWM) beyond what it held when its session was loaded, on three runs. Linux with glibc only.

Sides: "dense" is ONNX's Attention; "lists" is BlockSparseAttention with random lists, which come with the input;
"means" is block-topk with means=true; the others are those of `--attention` with as many keys as the density says,
choosing included. Each in C++, and "gathered" is "lists" by its function of standard operators. Batch 1, six heads of
64. Without --sides a table has the fast ones; with --causal all are causal, and it has those that choose single
queries' or chunks' keys (quest, double-sparsity with 16 random channels, tokenselect; of the pairs that causality
leaves) and block-topk.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime

from benchmarks.nearest_code import megabytes
from edgetok import attention, native, plugins, statistics, timing
from edgetok.attention import Lists
from edgetok.graph import IR_VERSION, OPSET, Emitter, constant
from edgetok.view.sparse import AttentionSite, attend_to

SIDES = ("dense", "window", "block-topk", "means", "lists", "gathered")
CAUSAL = ("dense", "block-topk", "quest", "double-sparsity", "tokenselect")
SPECS = {  # of those whose name alone does not say how many keys
    "means": "block-topk:means=true",
    "window": "window:size={keys}",
    "streaming": "streaming:size={keys}",
    "sepllm": "sepllm:size={keys},ids=13",
    "xattention": "xattention:most={density}",
    "svg2": "svg2:most={density}",
    "hisa": "hisa:density={density},candidates={candidates}",
    "llsa": "llsa:top={blocks}",
}
HEADS, WIDTH, BLOCK = 6, 64, 64


def chosen(site: AttentionSite, side: str, density: float) -> tuple[Lists, int]:
    """What a side attends to, and how many queries a list is for."""
    tokens, graph = site.tokens, site.op.graph
    if side in ("lists", "gathered"):
        blocks = -(-tokens // BLOCK)
        drawn = np.random.default_rng(tokens).random((1, HEADS, blocks, blocks)).argsort(axis=-1)
        index = drawn[..., : max(1, round(density * blocks))].astype(np.int32)
        count = np.full(index.shape[:-1], index.shape[-1], np.int32)
        return Lists(constant(graph, index), constant(graph, count), 0), BLOCK
    keys = round(density * tokens) if density < 1 else 2 * tokens  # a window has two sides
    text = SPECS.get(side, side).format(
        keys=keys, density=density, candidates=max(density, 0.5), blocks=round(density * tokens / 16)
    )  # fmt: skip
    spec = attention.parse(text)
    made, config = attention.load(spec.name), spec.config
    if made.of_density is not None:
        config = made.of_density(config, density, tokens)
    return made.lists(site, config), config.block


def session(side: str, tokens: int, density: float, threads: int, causal: bool) -> onnxruntime.InferenceSession:
    """q, k, v (1, 6, N, 64), input_ids (1, N) -> y."""
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, HEADS, tokens, WIDTH])
    q, k, v = (ir.Value(name=name, type=kind, shape=shape) for name in "qkv")
    ids = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1, tokens]))
    graph = ir.Graph([q, k, v, ids], [], nodes=[], opset_imports={"": OPSET}, name="attend")
    op = Emitter(graph)
    if side == "dense":
        y = op.Attention(q, k, v, is_causal=int(causal))
    else:
        measured = np.random.default_rng(0).random((1, HEADS, WIDTH), np.float32)
        site = AttentionSite(
            op, q, k, v, None, WIDTH**-0.5, HEADS, HEADS, tokens, WIDTH, 0, causal, ids, measured=measured
        )  # fmt: skip
        _, y = attend_to(site, *chosen(site, side, density))
    y.name, y.type, y.shape = "y", kind, shape
    graph.outputs.append(y)
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if side != "gathered":
        options.register_custom_ops_library(str(native.library()))
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def runner(side: str, tokens: int, density: float, threads: int, causal: bool) -> Callable[[], np.ndarray]:
    """Runs a side on seeded input."""
    made = session(side, tokens, density, threads, causal)
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((3, 1, HEADS, tokens, WIDTH)).astype(np.float32)
    feeds = dict(zip("qkv", drawn, strict=True)) | {"input_ids": generator.integers(0, 50, (1, tokens))}
    return lambda: made.run(None, feeds)[0]


def peak(side: str, tokens: int, density: float, threads: int, causal: bool) -> float:
    """Megabytes on three runs; to be called in a process of its own."""
    run = runner(side, tokens, density, threads, causal)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading gave back is not there to be used again
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = megabytes("VmRSS")
    for _ in range(3):
        run()
    return megabytes("VmHWM") - before


def apart(side: str, tokens: int, density: float, threads: int, causal: bool) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--one", side, str(tokens), str(density), str(threads)]
    command += ["--causal"] * causal
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(tokens: int, density: float, sides: Sequence[str], threads: int, rounds: int, causal: bool) -> None:
    """Print the lines of a length and a density."""
    runs = {side: runner(side, tokens, density, threads, causal) for side in sides}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for run in runs.values():
        run()
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    for _ in range(rounds):
        for side, run in runs.items():
            times[side] += timing.sample(run, 1, clock=clock)
    for side, own in times.items():
        ratio = statistics.ratio(list(zip(times["dense"], own, strict=True)))
        held = apart(side, tokens, density, threads, causal)
        print(f"| {tokens} | {density:g} | {side} | {median(own):.1f} | {ratio} | {held:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.25, 0.5, 1])
    parser.add_argument("--sides", nargs="+", choices=dict.fromkeys([*SIDES, *attention.names()]))
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        side, tokens, density, threads = args.one
        print(peak(side, int(tokens), float(density), int(threads), args.causal))
        return
    sides = args.sides or (CAUSAL if args.causal else SIDES)
    print("| tokens | density | side | ms | times as fast as dense | holds, MB |")
    print("|---|---|---|---|---|---|")
    for tokens in args.tokens:
        for density in args.densities:
            table(tokens, density, sides, args.threads, args.rounds, args.causal)


if __name__ == "__main__":
    main()
