"""NearestCode: for every token the row of a codebook with the largest product plus bias.

The search of vector quantisation (VQ-VAE, https://arxiv.org/abs/1711.00937, section 3.1) in large codebooks:
|x - c|^2 is smallest where x c - |c|^2 / 2 is largest, and a cosine needs rows of length one and no bias. Equal scores:
the lower index. The index is one of the codebook's whatever the tokens hold.

The scores of all pairs are never there at once: the codes are searched in 24 blocks, written out one behind the other,
for a Loop is slow on a CPU and ends fusion in TensorRT. In a block, runs of 32 codes give their largest score
(ReduceMax runs at the speed of memory, ArgMax at a third of it), and only the best run is searched for its index. The
bias is one more column of the product. TopK gives score and index in one node: with two, ONNX Runtime, which orders
nodes depth first, computed all blocks for the one before the other read them.

benchmarks/nearest_code.py measures time and memory. Below 4096 codes a MatMul, an Add and an ArgMax are as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgetok.graph import OPSET, Emitter

if TYPE_CHECKING:
    import onnx
    import torch

BLOCKS, RUN = 24, 32  # 16 blocks are 8 % faster and take half as much memory again; 32 are 12 % slower
LOWEST = -3e38  # the bias of rows that fill the last blocks: below any score, and not infinite


class NearestCode:
    """x (B, N, d), codebook (K, d), bias (K,) -> index (B, N) int64.

    Written with a loop over the blocks, which onnxscript would make a Loop of; otherwise as `script` gives a function.
    """

    name = "NearestCode"

    @staticmethod
    def to_function_proto() -> onnx.FunctionProto:
        """The function with its body."""
        x, codebook, bias = inputs = [ir.Value(name=name) for name in ("x", "codebook", "bias")]
        graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="NearestCode")
        op = Emitter(graph)
        found = _search(op, x, _blocks(op, codebook, bias))
        last = op.Sub(op.Shape(codebook, start=0, end=1), op.Constant(value_int=1))
        index = op.Min(found, last)  # rows that only fill up can win where x is not finite
        graph.outputs.append(index)
        for number, node in enumerate(graph):
            for value in node.outputs:
                value.name = value.name or f"v{number}_{value.index()}"
        index.name = "index"
        return ir.to_proto(ir.Function("edgetok", "NearestCode", graph=graph, attributes=[]))


function = NearestCode


def _blocks(op: Emitter, codebook: ir.Value, bias: ir.Value) -> tuple[ir.Value, ...]:
    """Codebook and bias as BLOCKS matrices (d + 1, a multiple of RUN)."""
    zero, group = (op.Constant(value_ints=[number]) for number in (0, BLOCKS * RUN))
    over = op.Mod(op.Shape(codebook, start=0, end=1), group)
    fill = op.Mod(op.Sub(group, over), group)  # rows that are missing
    rows = op.Pad(codebook, op.Concat(zero, zero, fill, zero, axis=0))
    last = op.Pad(bias, op.Concat(zero, fill, axis=0), op.Constant(value_float=LOWEST))
    matrix = op.Transpose(op.Concat(rows, op.Unsqueeze(last, op.Constant(value_ints=[1])), axis=1), perm=[1, 0])
    return op.Split(matrix, axis=1, num_outputs=BLOCKS, outputs=BLOCKS)


def _search(op: Emitter, x: ir.Value, blocks: tuple[ir.Value, ...]) -> ir.Value:
    """The best of each block, and the best of these."""
    one, run = op.Constant(value_ints=[1]), op.Constant(value_ints=[RUN])
    size = op.Shape(blocks[0], start=1, end=2)  # codes of a block
    runs = op.Concat(op.Constant(value_ints=[0, 0]), op.Div(size, run), run, axis=0)
    ones = op.Expand(op.Constant(value_float=1.0), op.Concat(op.Shape(x, start=0, end=2), one, axis=0))
    x = op.Concat(x, ones, axis=2)
    best, places = [], []
    for block in blocks:
        scores = op.Reshape(op.MatMul(x, block), runs)  # (B, N, R, RUN)
        place = op.ArgMax(op.ReduceMax(scores, op.Constant(value_ints=[3]), keepdims=0), axis=2)  # (B, N, 1) of R
        score, inside = op.TopK(op.GatherND(scores, place, batch_dims=2), one, axis=2, outputs=2)
        best.append(score)
        places.append(op.Add(op.Mul(place, run), inside))
    block = op.ArgMax(op.Concat(*best, axis=2), axis=2)  # (B, N, 1)
    inside = op.GatherElements(op.Concat(*places, axis=2), block, axis=2)
    return op.Squeeze(op.Add(op.Mul(block, size), inside), op.Constant(value_ints=[2]))


def reference(x: torch.Tensor, codebook: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Search all codes at once.

    Args:
        x: (B, N, d) tokens.
        codebook: (K, d) one code per row.
        bias: (K,) added to the product with each code: -|c|^2 / 2 for the nearest by euclidean distance.

    Returns:
        (B, N) int64: the row whose product plus bias is the largest, of equal ones the first.
    """
    return (x @ codebook.mT + bias).argmax(dim=-1)


def cases() -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Named inputs of the reference."""
    import torch

    def euclidean(batch: int, count: int, codes: int, width: int) -> tuple[torch.Tensor, ...]:
        seeded = torch.Generator().manual_seed(codes)
        x, codebook = (torch.randn(*shape, width, generator=seeded) for shape in ((batch, count), (codes,)))
        return x, codebook, -codebook.square().sum(dim=1) / 2

    yield "large", euclidean(1, 64, 16384, 16)
    yield "odd", euclidean(3, 31, 10007, 8)
    yield "few", euclidean(2, 7, 5, 3)
    yield "one_code", euclidean(2, 1, 1, 3)
    x, codebook, bias = euclidean(2, 9, 8192, 4)
    yield "cosine", (x, torch.nn.functional.normalize(codebook, dim=1), torch.zeros_like(bias))
    yield "equal_codes", (x, codebook[:100].repeat(100, 1), bias[:100].repeat(100))
