"""What sparse attentions compute of blocks of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import Refusal
from edgetok.graph import constant

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


@dataclass(frozen=True)
class Estimate:
    """Keys with the means of blocks that are not listed in front, and lists of them.

    Attributes:
        key, value: (B, h, P + N, d): for each row of lists its own means, in whole blocks, then the tokens.
        bias: (1 or B, P + N) fp32: the log of how many tokens each key stands for, -inf where it fills up.
        index: (B, h, Q, blocks + listed) int64: a row's means, then what it listed.
        blocks: of means in a row.
    """

    key: ir.Value
    value: ir.Value
    bias: ir.Value
    index: ir.Value
    blocks: int


def estimate(
    site: AttentionSite,
    means: tuple[ir.Value, ir.Value],
    mass: ir.Value | np.ndarray,
    index: ir.Value,
    most: int,
    ahead: np.ndarray,
    block: int,
) -> Estimate:
    """What is not listed, by the means of its blocks.

    Args:
        means: (B, h, K, d) fp32 of keys and of values; each stands for `block` tokens, unless it is empty.
        mass: (B or 1, 1, 1, K) the log of how many tokens each holds, EMPTY for none.
        index: (B, h, Q, K) all blocks of keys, the best first and those that are not seen last.
        most: how many of them are listed.
        ahead: (Q,) how many of them a row may see.

    Raises:
        Refusal: tokens stand for several, and the means for different numbers of them.
    """
    if site.reduced and site.size is not None:
        raise Refusal(
            "means=true takes all blocks as equally full, and here tokens stand for several",
            way_out="leave means= out, or attend so only in blocks in front of the reduction (layers=)",
        )
    op, blocks, rows = site.op, site.blocks(block), len(ahead)
    most = min(most, blocks)
    filled = -(-(blocks - most) // block)
    fill, first = filled * block - (blocks - most), rows * filled
    if not filled:
        row = op.Expand(site.bias_row(), op.Concat(op.Shape(site.key, start=0, end=1), np.array([site.tokens]), axis=0))
        key, value = (site.for_heads(tokens, site.width) for tokens in (site.key, site.value))
        return Estimate(key, value, row, index, 0)
    rest = op.Slice(index, np.array([most]), np.array([blocks]), np.array([3]))
    rest = op.Reshape(rest, np.array([0, 0, -1, 1]))

    def in_front(means: ir.Value, tokens: ir.Value) -> ir.Value:
        own = op.Reshape(op.GatherND(means, rest, batch_dims=2), np.array([0, site.heads, rows, -1, site.width]))
        own = op.Pad(own, np.array([0, 0, 0, 0, 0, 0, 0, 0, fill, 0])) if fill else own
        own = op.Cast(op.Reshape(own, np.array([0, site.heads, first * block, site.width])), to=tokens.dtype)
        both: ir.Value = op.Concat(own, site.for_heads(tokens, site.width), axis=2)
        return both

    shape = op.Concat(op.Shape(index, start=0, end=3), np.array([filled]), axis=0)
    own = op.Expand(np.arange(first).reshape(1, 1, rows, filled), shape)
    listed = op.Add(op.Slice(index, np.array([0]), np.array([most]), np.array([3])), np.array(first))
    bias = _weights(site, mass, most, ahead, block, filled * block)
    key, value = in_front(means[0], site.key), in_front(means[1], site.value)
    return Estimate(key, value, bias, op.Concat(own, listed, axis=3), filled)


def _weights(
    site: AttentionSite, mass: ir.Value | np.ndarray, most: int, ahead: np.ndarray, block: int, places: int
) -> ir.Value:
    """(1 or B, P + N) fp32: the log of `block` where a row's place holds a mean, -inf where it is left over."""
    op, place, log = site.op, np.arange(places), np.float32(np.log(block))
    if isinstance(mass, np.ndarray):
        weights = np.where(place < ahead[:, None] - most, log, -np.inf)
        return constant(op.graph, np.append(weights, np.zeros(site.tokens))[None].astype(np.float32))
    within = (np.arange(site.blocks(block))[:, None] < ahead).astype(np.float32)  # (K, Q)
    holds = op.Cast(op.Greater(mass, np.float32(EMPTY / 2)), to=ir.DataType.FLOAT)
    count = op.MatMul(holds, within)  # (B, 1, 1, Q): blocks that are not empty
    left = op.Reshape(op.Sub(count, np.float32(most)), np.array([0, -1, 1]))
    weights = op.Where(op.Less(place.astype(np.float32), left), log, np.float32(-np.inf))  # (B, Q, places)
    row = op.Expand(site.bias_row(), op.Concat(op.Shape(mass, start=0, end=1), np.array([site.tokens]), axis=0))
    both: ir.Value = op.Concat(op.Reshape(weights, np.array([0, -1])), row, axis=1)
    return both
