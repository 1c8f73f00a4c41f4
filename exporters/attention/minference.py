"""minference: a head of a causal model attends along the columns and diagonals that its last queries look at.

MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention,
https://arxiv.org/abs/2407.02490, section 3.2, its vertical-slash heads; published code: microsoft/MInference, whose
columns and diagonals this one's equal (tests). Its block-sparse heads are `block-topk`.

The attention of the `last` queries to all keys is computed; summed over the queries it says which keys all look at
(vertical lines), summed along diagonals at which distances tokens look back (slashes). The `vertical` best columns and
the `slash` best diagonals are taken, and with them always the `sinks` first columns and the `near` nearest diagonals,
the token itself among them. A block of queries attends to each block of keys that a line passes, so it sees all that
the published pattern does and more. Cost: last x N products, two TopKs of N.

What differs: published are budgets that include the lines always taken, and a budget of fewer diagonals than those
picks among ties; here they come on top. The published code keeps columns as single tokens. It is tuned head by head
offline, which one of three patterns and how many lines; here `auto` finds budgets per layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

BARRED = np.float32(-1e6)
FORCED = np.float32(1e6)


@dataclass(frozen=True)
class Config:
    """Options of minference.

    Attributes:
        vertical: how many columns are taken beside the sinks.
        slash: how many diagonals are taken beside the nearest.
        sinks: how many first columns are always taken.
        near: how many nearest diagonals are always taken.
        last: how many last queries say which.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    vertical: int = 8
    slash: int = 8
    sinks: int = 30
    near: int = 100
    last: int = 64
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        for name, low in (("vertical", 0), ("slash", 0), ("sinks", 1), ("near", 1), ("last", 1)):
            check_range(self, name, low, 2**24)

    def longest(self, blocks: int) -> int:
        """The longest list among so many blocks: a diagonal passes two blocks of a row."""
        touched = -(-self.sinks // self.block) + self.vertical + -(-self.near // self.block) + 1 + 2 * self.slash
        return min(blocks, touched)


def lists(site: AttentionSite, config: Config) -> Lists:
    """Sum, take the best lines, and list what they pass."""
    op, blocks, block = site.op, site.blocks(config.block), config.block
    fill = np.array([0, 0, 0, 0, 0, blocks * block - site.tokens])
    columns, diagonals = _sums(site, config)
    passed = []
    for sums, always, more in ((columns, config.sinks, config.vertical), (diagonals, config.near, config.slash)):
        forced = FORCED * (np.arange(site.tokens) < always).astype(np.float32)
        _, index = op.TopK(op.Add(sums, forced), np.array([min(always + more, site.tokens)]), axis=2, outputs=2)
        ones = op.Expand(np.float32(1), op.Shape(index))
        flags = op.Pad(op.ScatterElements(op.Mul(sums, np.float32(0)), index, ones, axis=2), fill)
        passed.append(op.Reshape(flags, np.array([0, 0, blocks, block])))
    column = op.ReduceMax(passed[0], np.array([3]), keepdims=0)  # (B, h, K)
    ahead = op.ReduceMax(passed[1], np.array([3]), keepdims=0)  # distances from e block on
    inside = op.Slice(passed[1], np.array([1]), np.array([block]), np.array([3]))
    inside = op.ReduceMax(inside, np.array([3]), keepdims=0)
    behind = op.Slice(op.Pad(inside, np.array([0, 0, 1, 0, 0, 0])), np.array([0]), np.array([blocks]), np.array([2]))
    diagonal = op.Max(ahead, behind)  # (B, h, K) whether one passes blocks that lie so far apart
    row, key = np.arange(blocks)[:, None], np.arange(blocks)
    slashes = op.Gather(diagonal, np.maximum(row - key, 0), axis=2)  # (B, h, Q, K)
    mask = op.Mul(op.Max(slashes, op.Unsqueeze(column, np.array([2]))), (key <= row).astype(np.float32))
    most = config.longest(blocks)
    there, index = op.TopK(mask, np.array([most]), axis=3, outputs=2)
    count = op.ReduceSum(op.Cast(there, to=ir.DataType.INT32), np.array([3]), keepdims=0)
    density = int(np.minimum(np.arange(blocks) + 1, most).sum()) / (blocks * (blocks + 1) // 2)
    return Lists(op.Cast(index, to=ir.DataType.INT32), count, 0, density=density)


def _sums(site: AttentionSite, config: Config) -> tuple[ir.Value, ir.Value]:
    """(B, h, N) fp32 twice: the attention of the last queries to each key, and at each distance."""
    op, tokens, last = site.op, site.tokens, min(config.last, site.tokens)
    place = np.arange(tokens - last, tokens)  # of the last queries; further in front by `short` where padding follows
    query, key = (op.Cast(value, to=ir.DataType.FLOAT) for value in (site.query, site.key))
    key = site.for_heads(key, site.width)
    short: ir.Value | None = None
    if site.size is None:
        query = op.Slice(query, np.array([tokens - last]), np.array([tokens]), np.array([2]))
        visible: ir.Value | np.ndarray = np.where(np.arange(tokens) <= place[:, None], np.float32(0), BARRED)
    else:
        real = op.Cast(op.Greater(op.Reshape(site.size, np.array([0, -1])), np.float32(0)), to=ir.DataType.INT64)
        end = op.ReduceMax(op.Mul(real, np.arange(1, tokens + 1)), np.array([1]))  # (B, 1)
        short = op.Min(op.Sub(np.array(tokens), end), np.array(tokens - last))
        at = op.Sub(place, short)  # (B, last)
        shape = op.Concat(op.Shape(query, start=0, end=2), np.array([last, site.width]), axis=0)
        query = op.GatherElements(query, op.Expand(op.Unsqueeze(at, np.array([1, 3])), shape), axis=2)
        seen = op.LessOrEqual(np.arange(tokens), op.Unsqueeze(at, np.array([2])))
        seen = op.And(seen, op.Cast(op.Unsqueeze(real, np.array([1])), to=ir.DataType.BOOL))
        visible = op.Unsqueeze(op.Where(seen, np.float32(0), BARRED), np.array([1]))
    logits = op.MatMul(op.Mul(query, np.float32(site.scale)), op.Transpose(key, perm=[0, 1, 3, 2]))
    weights = op.Softmax(op.Add(logits, visible), axis=-1)  # (B, h, last, N)
    if short is not None:  # padding asks for nothing
        asks = op.GatherElements(real, at, axis=1)
        weights = op.Mul(weights, op.Cast(op.Unsqueeze(asks, np.array([1, 3])), to=ir.DataType.FLOAT))
    columns = op.ReduceSum(weights, np.array([2]), keepdims=0)
    # read backwards and one place further in each row, a row of N + last numbers has distances in its columns
    turned = op.Gather(weights, np.arange(tokens)[::-1].copy(), axis=3)
    flat = op.Reshape(op.Pad(turned, np.array([0, 0, 0, 0, 0, 0, 0, last])), np.array([0, site.heads, -1]))
    length = last * (tokens + last - 1)
    flat = op.Slice(flat, np.array([last - 1]), np.array([last - 1 + length]), np.array([2]))
    skewed = op.Reshape(flat, np.array([0, site.heads, last, tokens + last - 1]))
    skewed = op.Slice(skewed, np.array([0]), np.array([tokens]), np.array([3]))
    diagonals = op.ReduceSum(skewed, np.array([2]), keepdims=0)
    if short is not None:  # the queries stood `short` further in front than the skewing took them for
        at = op.Add(np.arange(tokens), short)
        there = op.Cast(op.Less(at, np.array(tokens)), to=ir.DataType.FLOAT)
        at = op.Expand(op.Unsqueeze(op.Min(at, np.array(tokens - 1)), np.array([1])), op.Shape(diagonals))
        diagonals = op.Mul(op.GatherElements(diagonals, at, axis=2), op.Unsqueeze(there, np.array([1])))
    return columns, diagonals


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the lines."""
    import torch

    tokens, block = state.keys.shape[2], config.block
    blocks = -(-tokens // block)
    place = torch.arange(blocks * block)  # the last block as if it were full
    columns, diagonals = reference_lines(state, config)
    seen = torch.zeros(*state.queries.shape[:2], blocks, blocks, dtype=torch.bool)
    behind = place[:, None] - place
    for sample, head in torch.cartesian_prod(*map(torch.arange, seen.shape[:2])).tolist():
        lines = torch.isin(behind, diagonals[sample, head]) | torch.isin(place, columns[sample, head])
        rows, keys = lines.tril().nonzero(as_tuple=True)
        seen[sample, head, rows // block, keys // block] = True
    return seen.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)[:, :, :tokens, :tokens]


def reference_lines(state: AttentionState, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, h, V) the columns, (B, h, S) the distances of the diagonals."""
    import torch

    tokens = state.keys.shape[2]
    columns, diagonals = torch.zeros(2, *state.queries.shape[:3], dtype=state.queries.dtype)
    for sample, real in enumerate(state.size[..., 0] > 0):
        end = max(int(real.nonzero().max()) + 1, min(config.last, tokens))
        for query in range(max(0, end - config.last), end):
            if not real[query]:
                continue
            scores = (state.queries[sample, :, query, None] @ state.keys[sample].mT)[:, 0] * state.scale
            seen = real & (torch.arange(tokens) <= query)
            weights = scores.masked_fill(~seen, float(BARRED)).softmax(dim=-1)
            columns[sample] += weights
            diagonals[sample, :, : query + 1] += weights[:, : query + 1].flip(-1)
    columns[..., : config.sinks] += FORCED
    diagonals[..., : config.near] += FORCED
    vertical, slash = min(config.sinks + config.vertical, tokens), min(config.near + config.slash, tokens)
    return columns.topk(vertical).indices, diagonals.topk(slash).indices


ATTENTION = Attention(
    summary="each head of a causal model sees the columns and diagonals that its last queries look at",
    paper="MInference 1.0, https://arxiv.org/abs/2407.02490, section 3.2, vertical-slash heads",
    examples=("minference:vertical=2,slash=1,sinks=2,near=3,last=8,block=16", "minference:sinks=1,near=1,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    by_place=True,
)
