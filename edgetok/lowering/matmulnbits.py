"""ONNX Runtime's MatMulNBits, with activations rounded to int8 (accuracy_level 4).

It knows integers only: 2, 4 or 8 bits times a scale per block of 16 to 256 weights. A codebook whose levels are whole
steps is exact in it: integers as they are, E2M1 doubled, which is 0, 1, 2, 3, 4, 6, 8, 12, in 8 bits. NF4, learnt
codebooks and several planes are not. Without accuracy_level 4 its 8-bit form takes 20 to 85 times fp32's time, so that
there is no a32 here. Integers of 2 bits are written in 4: the 2-bit kernel of onnxruntime 1.32 rounds activations
more coarsely (1 % off instead of 0.4 %). See com.microsoft.MatMulNBits in ONNX Runtime's docs/ContribOperators.md.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.lowbit.node import swap
from edgetok.lowbit.weight import Weight, pack

BLOCKS = (256, 128, 64, 32, 16)
LARGEST = 127  # of an integer level


def lower(graph: ir.Graph, node: ir.Node, weight: Weight) -> bool:
    """Put a MatMulNBits in the node's place; False where that would not be exact."""
    levels = whole_steps(weight.codebook)
    block = next((size for size in BLOCKS if weight.block % size == 0), None)
    if levels is None or block is None:
        return False
    integers, step = levels
    bits = 4 if integers.min() >= -8 and integers.max() <= 7 else 8
    outputs, inputs = weight.shape
    blocks = -(-inputs // block)
    codes = (integers + 2 ** (bits - 1)).astype(np.uint8)[weight.codes]  # the zero point by default
    codes = np.pad(codes, ((0, 0), (0, -inputs % block)))
    scales = np.repeat(weight.wide_scales[..., 0] * step, weight.block // block, axis=1)[:, :blocks]
    packed = pack(codes, bits).reshape(outputs, blocks, block * bits // 8)

    def write(op: g.Emitter, x: ir.Value) -> ir.Value:
        written: ir.Value = op.MatMulNBits(
            x, packed, scales, domain="com.microsoft", K=inputs, N=outputs, bits=bits, block_size=block,
            accuracy_level=4,
        )  # fmt: skip
        return written

    swap(graph, node, write, in_fp32=True)
    return True


def whole_steps(codebook: np.ndarray) -> tuple[np.ndarray, np.float32] | None:
    """((2^bits,) int64, step): one plane's levels as integers times a step, exactly; None where they are not."""
    if codebook.shape[:2] != (1, 1):
        return None
    levels = codebook[0, 0].astype(np.float64)
    sizes = np.abs(levels[levels != 0])
    if not len(sizes):
        return None
    step = float(sizes.min())
    integers = np.rint(levels / step)
    if np.abs(integers).max() > LARGEST + (levels.min() == -(LARGEST + 1) * step):
        return None
    return (integers.astype(np.int64), np.float32(step)) if np.array_equal(integers * step, levels) else None
