"""LutMatMul in C++ against what ONNX Runtime has for weights of few bits, all sides taking turns in one process.

    python benchmarks/lut_matmul.py --rows 1 197 --threads 1 2

One thread is measured by the process's own time, which other work on the machine disturbs least; more by the clock. A
ratio is the median over the turns of (theirs / ours), with its 95 % interval: above 1, LutMatMul is the faster.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edgetok import native, statistics, timing

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
NF4 = [-1, -0.696, -0.525, -0.395, -0.284, -0.185, -0.091, 0, 0.08, 0.161, 0.246, 0.338, 0.441, 0.563, 0.723, 1]
BITS = [[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
TARGETS = (  # rows, ours, theirs, and how many times as fast ours must be
    *((1, ours, "MatMulBnb4 FP4", 25) for ours in ("mxfp4 a8", "nvfp4 a8")),
    *((1, ours, "MatMulNBits 4", 1 / 1.1) for ours in ("mxfp4 a8", "nvfp4 a8")),
    *((197, ours, "MatMul fp32", 1.5) for ours in ("mxfp4 a8", "nvfp4 a8")),
    *((197, ours, theirs, 1) for ours in ("mxfp4 a8", "nvfp4 a8") for theirs in ("MatMulNBits 4", "MatMulNBits 8")),
    *((rows, "2 bits a8", "MatMulNBits 2, LUT", 1) for rows in (1, 197)),
    *((rows, "nvfp4 a32", "MatMul fp32", 1) for rows in (1, 197)),
)

Product = Callable[[np.ndarray], object]  # of (rows, K)


class Sides:
    """Makers of sessions with one product (rows, K) (K, N)."""

    def __init__(self, inner: int, outputs: int, threads: int):
        self.inner, self.outputs, self.threads = inner, outputs, threads
        self.rng = np.random.default_rng(0)

    def session(
        self, op: str, domain: str, weights: list[np.ndarray], attributes: Mapping[str, Any], **entries: str
    ) -> Product:
        names = [f"w{i}" for i in range(len(weights))]
        node = helper.make_node(op, ["x", *names], ["y"], domain=domain, **attributes)
        sizes = (("x", self.inner), ("y", self.outputs))
        x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", size]) for name, size in sizes)
        graph = helper.make_graph([node], "one", [x], [y], list(map(numpy_helper.from_array, weights, names)))
        opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for key, value in entries.items():
            options.add_session_config_entry(key.replace("__", "."), value)
        if domain == "edgetok.native":
            options.register_custom_ops_library(str(native.library()))
        made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda x: made.run(None, {"x": x})

    def bytes(self, *shape: int) -> np.ndarray:
        return self.rng.integers(0, 256, shape).astype(np.uint8)

    def lut(self, codebook: Sequence[Sequence[float]], bits: int, block: int, scale: str, mode: str) -> Product:
        book = np.array([codebook], np.float32)
        scales = self.rng.random((self.outputs, self.inner // block, book.shape[1])) / 100
        weights = [self.bytes(self.outputs, self.inner * bits // 8), book, scales.astype(scale)]
        return self.session("LutMatMul", "edgetok.native", weights, {"bits": bits, "inner": self.inner, "mode": mode})

    def n_bits(self, bits: int, **entries: str) -> Product:
        blocks = self.inner // 32
        scales = self.rng.random((self.outputs, blocks)).astype(np.float32)
        attributes = {"K": self.inner, "N": self.outputs, "bits": bits, "block_size": 32, "accuracy_level": 4}
        codes = self.bytes(self.outputs, blocks, 4 * bits)
        return self.session("MatMulNBits", "com.microsoft", [codes, scales], attributes, **entries)

    def bnb4(self) -> Product:
        size = self.inner * self.outputs
        weights = [self.bytes(size // 2), self.rng.random(size // 32).astype(np.float32)]
        attributes = {"K": self.inner, "N": self.outputs, "quant_type": 0, "block_size": 32}
        return self.session("MatMulBnb4", "com.microsoft", weights, attributes)

    def all(self) -> dict[str, Product]:
        dense = self.rng.standard_normal((self.inner, self.outputs)).astype(np.float32)
        return {
            "mxfp4 a8": self.lut([E2M1], 4, 32, "float32", "a8"),
            "nvfp4 a8": self.lut([E2M1], 4, 16, "float16", "a8"),
            "nf4 a8": self.lut([NF4], 4, 64, "float32", "a8"),
            "2 bits a8": self.lut([[-2, -1, 0, 1]], 2, 32, "float32", "a8"),
            "sum of 2 bits a8": self.lut(BITS, 2, 64, "float16", "a8"),
            "nvfp4 a32": self.lut([E2M1], 4, 16, "float16", "a32"),
            "MatMul fp32": self.session("MatMul", "", [dense], {}),
            "MatMulBnb4 FP4": self.bnb4(),
            "MatMulNBits 4": self.n_bits(4),
            "MatMulNBits 8": self.n_bits(8),
            "MatMulNBits 2, LUT": self.n_bits(2, mlas__use_lut_gemm="1"),
        }


def turns(sides: dict[str, Product], x: np.ndarray, rounds: int, clock: timing.Clock) -> dict[str, list[float]]:
    """Milliseconds of each side in each round: the median of a few runs in a row, the first of them left out."""
    runs = 8 if len(x) < 8 else 3
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(median(timing.sample(partial(run, x), runs, clock=clock)[1:]))
    return times


def report(times: dict[str, list[float]], rows: int, threads: int) -> None:
    """The table of all sides, and which targets are met."""
    print(f"\n{rows} rows, {threads} threads\n\n| side | ms | times as fast as fp32 |\n|---|---|---|")
    for name, own in times.items():
        print(f"| {name} | {median(own):.3g} | {statistics.ratio(list(zip(times['MatMul fp32'], own, strict=True)))} |")
    print("\n| ours | theirs | ratio | target | met |\n|---|---|---|---|---|")
    for of_rows, ours, theirs, least in TARGETS:
        if of_rows == rows:
            ratio = statistics.ratio(list(zip(times[theirs], times[ours], strict=True)))
            print(f"| {ours} | {theirs} | {ratio} | {least:.3g} | {'yes' if ratio.value >= least else 'no'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 197])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", type=int, nargs=2, default=[4096, 4096], metavar=("K", "N"))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    found = native.status()
    if found.state != "ok":
        parser.error(f"{found.detail}; {native.AGAIN}")
    print(f"{found.detail}, onnxruntime {onnxruntime.__version__}, K and N {arguments.shape}")
    for threads in arguments.threads:
        inner, outputs = arguments.shape
        sides = Sides(inner, outputs, threads).all()
        for rows in arguments.rows:
            x = np.random.default_rng(rows).standard_normal((rows, arguments.shape[0])).astype(np.float32)
            clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
            report(turns(sides, x, arguments.rounds, clock), rows, threads)


if __name__ == "__main__":
    main()
