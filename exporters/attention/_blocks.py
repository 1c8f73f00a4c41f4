"""What sparse attentions compute of blocks of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from edgetok.view.sparse import AttentionSite

EMPTY = -1e6  # the log of a block that holds only padding


def averages(
    site: AttentionSite, value: ir.Value, heads: int, block: int
) -> tuple[ir.Value, ir.Value | np.ndarray]:
    """(B, h, N, d) -> (B, h, blocks, d) fp32, and the log of how many tokens each holds, (B or 1, 1, 1, blocks).

    A token counts as often as those it stands for, padding not at all.
    """
    op, blocks = site.op, site.blocks(block)
    fill = blocks * block - site.tokens
    value = op.Cast(value, to=ir.DataType.FLOAT)
    if site.size is not None:
        value = op.Mul(value, op.Unsqueeze(site.size, np.array([1])))  # (B, 1, N, 1)
    if fill:
        value = op.Pad(value, np.array([0, 0, 0, 0, 0, 0, fill, 0]))
    sums = op.ReduceSum(op.Reshape(value, np.array([0, heads, blocks, block, site.width])), np.array([3]), keepdims=0)
    if site.size is None:
        counts = np.full(blocks, block, np.float32)
        counts[-1] -= fill
        return op.Mul(sums, 1 / counts[:, None]), np.log(counts)[None, None, None]
    size = op.Pad(site.size, np.array([0, 0, 0, 0, fill, 0])) if fill else site.size
    mass = op.ReduceSum(op.Reshape(size, np.array([0, 1, blocks, block])), np.array([3]))  # (B, 1, blocks, 1)
    row = op.Transpose(mass, perm=[0, 1, 3, 2])
    log = op.Where(op.Greater(row, np.float32(0)), op.Log(op.Max(row, np.float32(1e-6))), np.float32(EMPTY))
    return op.Div(sums, op.Max(mass, np.float32(1e-6))), log
