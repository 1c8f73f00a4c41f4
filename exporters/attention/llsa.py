"""llsa: each block of queries attends to a few blocks of keys, and to the means of all others.

Trainable Log-linear Sparse Attention for Efficient Diffusion Transformers, https://arxiv.org/abs/2512.16615, section 3;
steps and defaults from its published code, SingleZombie/LLSA, whose choice and outputs this one's equal (tests).

Queries, keys and values are averaged over their blocks. With one level each block of queries takes the `top` blocks of
keys whose means are nearest, and attends to their tokens and to the means of *all* blocks, each with as many times the
weight as it holds tokens: log(16) is added to its scores. With two levels the means are averaged once more: a block of
16 means takes the `top` nearest of those, its blocks choose among the children of these, and attend to the tokens
chosen, to the means that are children of what the upper level chose, and to all upper means. Always kept: the coarse
means; the first block too where there is a prefix, which sees all. For encoders and diffusion transformers; trained
with it a model loses little, without it merely approximates.

What differs: the published kernels drop the coarse means silently where there are fewer than 64 of them; here they
always count. They need lengths and `top` that are powers of two; here a last block may be short, merged tokens count as
often as those they stand for, and padding not at all. As published, a block that is attended to token by token counts
among the means once more. Pictures are not sorted into tiles of 4 x 4. All means are compared, N^2 / 256 products,
where the published code compares children only.
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

FORCED = np.float32(1e8)  # is added to the score of what comes first
OUTSIDE = np.float32(-1e7)  # of what is no child of a block that the upper level chose
BARRED = np.float32(-1e6)  # of what holds only padding
NONE = np.float32(1e-6)  # tokens, in place of none


@dataclass(frozen=True)
class Config:
    """Options of llsa.

    Attributes:
        top: how many blocks a block of queries takes at each level.
        levels: 1 or 2; two pay from some 16000 tokens on.
        block: tokens of a block, and means of an upper one: 16, 32, 64 or 128.
    """

    top: int = 8
    levels: int = 1
    block: int = 16

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "top", 1, 2**16)
        check_range(self, "levels", 1, 2)


def lists(site: AttentionSite, config: Config) -> Lists:
    """Average, compare, and put the means behind the keys."""
    op, block, blocks = site.op, config.block, site.blocks(config.block)
    upper, whole = -(-blocks // block), -(-site.prefix // block)  # the means fill `upper` blocks
    means = _Level.of(site).averaged(block)
    scores = _scores(site, means)
    stored, chosen = [means], [np.arange(blocks, blocks + upper)]  # all means are seen
    children: ir.Value | None = None
    if config.levels == 2:
        above = means.averaged(block)
        stored.append(above)
        _, taken = op.TopK(_scores(site, above), np.array([min(config.top, upper)]), axis=3, outputs=2)
        children = op.Gather(taken, np.arange(blocks) // block, axis=2)  # (B, h, blocks, top) blocks of means
        outside = op.Expand(OUTSIDE, op.Concat(op.Shape(children, start=0, end=3), np.array([upper]), axis=0))
        inside = op.ScatterElements(outside, children, op.Expand(np.float32(0), op.Shape(children)), axis=3)
        scores = op.Add(scores, op.Gather(inside, np.arange(blocks) // block, axis=3))
        chosen = [np.arange(blocks + upper, blocks + upper + -(-upper // block))]  # all means of means
    if site.prefix:
        scores = op.Add(scores, FORCED * (np.arange(blocks) == 0))
    _, index = op.TopK(scores, np.array([min(config.top, blocks)]), axis=3, outputs=2)
    parts = [index] if children is None else [index, op.Add(children, np.array(blocks))]
    rows = op.Shape(index, start=0, end=3)
    parts += [op.Expand(each, op.Concat(rows, np.array([len(each)]), axis=0)) for each in chosen]
    listed = op.Slice(op.Concat(*parts, axis=3), np.array([whole]), np.array([blocks]), np.array([2]))
    length = min(config.top, blocks) + len(chosen[0]) + (0 if children is None else min(config.top, upper))
    count = op.Expand(np.array(length, np.int32), op.Shape(listed, start=0, end=3))
    keys, values, biases = _keys(site, stored, block)
    density = min(1.0, (whole * blocks + (blocks - whole) * length) / blocks**2)
    return Lists(
        op.Cast(listed, to=ir.DataType.INT32), count, whole, density=density,
        key=op.Concat(*keys, axis=2), value=op.Concat(*values, axis=2), bias=op.Concat(*biases, axis=1),
    )  # fmt: skip


@dataclass(frozen=True)
class _Level:
    """Tokens, or means: queries (B, h, n, d), keys and values (B, g, n, d), how many tokens each holds (B, 1, n, 1)."""

    site: AttentionSite
    length: int
    query: ir.Value
    key: ir.Value
    value: ir.Value
    mass: ir.Value

    @classmethod
    def of(cls, site: AttentionSite) -> _Level:
        """The tokens."""
        op, batch = site.op, site.op.Shape(site.key, start=0, end=1)
        size: ir.Value | np.ndarray = np.ones((1, 1, site.tokens, 1), np.float32)
        if site.size is not None:
            size = op.Unsqueeze(site.size, np.array([1]))
        mass = op.Expand(size, op.Concat(batch, np.array([1, site.tokens, 1]), axis=0))
        query, key, value = (op.Cast(x, to=ir.DataType.FLOAT) for x in (site.query, site.key, site.value))
        return cls(site, site.tokens, query, key, value, mass)

    def averaged(self, block: int) -> _Level:
        """Over blocks."""
        op, up = self.site.op, -(-self.length // block)

        def sums(value: ir.Value, heads: int, width: int) -> ir.Value:
            value = op.Pad(value, np.array([0, 0, 0, 0, 0, 0, up * block - self.length, 0]))
            apart = op.Reshape(value, np.array([0, heads, up, block, width]))
            total: ir.Value = op.ReduceSum(apart, np.array([3]), keepdims=0)
            return total

        mass = sums(self.mass, 1, 1)

        def mean(value: ir.Value, heads: int) -> ir.Value:
            out: ir.Value = op.Div(sums(op.Mul(value, self.mass), heads, self.site.width), op.Max(mass, NONE))
            return out

        query, groups = mean(self.query, self.site.heads), self.site.groups
        return _Level(self.site, up, query, mean(self.key, groups), mean(self.value, groups), mass)


def _scores(site: AttentionSite, level: _Level) -> ir.Value:
    """(B, h, n, n) how near the means of keys are to those of queries."""
    op, key = site.op, site.for_heads(level.key, site.width)
    products = op.MatMul(op.Mul(level.query, np.float32(site.scale)), op.Transpose(key, perm=[0, 1, 3, 2]))
    empty = op.Mul(op.Cast(op.LessOrEqual(level.mass, NONE), to=ir.DataType.FLOAT), BARRED)
    out: ir.Value = op.Add(products, op.Transpose(empty, perm=[0, 1, 3, 2]))
    return out


def _keys(
    site: AttentionSite, levels: list[_Level], block: int
) -> tuple[list[ir.Value], list[ir.Value], list[ir.Value]]:
    """Keys (B, g, ..., d), values and biases (B, ...) of the tokens and of each level, filled up to whole blocks."""
    op, kind = site.op, site.key.dtype
    keys: list[ir.Value] = []
    values: list[ir.Value] = []
    biases: list[ir.Value] = []
    row = op.Expand(site.bias_row(), op.Concat(op.Shape(site.key, start=0, end=1), np.array([site.tokens]), axis=0))
    for level in (None, *levels):
        length = site.tokens if level is None else level.length
        fill = -length % block
        for own, mean, kept in ((site.key, level and level.key, keys), (site.value, level and level.value, values)):
            each = own if mean is None else op.Cast(mean, to=kind)
            kept.append(op.Pad(each, np.array([0, 0, 0, 0, 0, 0, fill, 0])) if fill else each)
        bias = row
        if level is not None:
            flat = op.Reshape(level.mass, np.array([0, -1]))
            bias = op.Where(op.Greater(flat, NONE), op.Log(op.Max(flat, NONE)), BARRED)
        biases.append(op.Pad(bias, np.array([0, 0, 0, fill]), BARRED) if fill else bias)
    return keys, values, biases


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """(B, h, N, N + means) who sees which tokens, and which means."""
    import torch

    tokens, block = state.keys.shape[2], config.block
    mass, query = _averages(state.queries, state.size, block)
    key = _averages(state.keys, state.size, block)[1]
    blocks, upper, whole = key.shape[2], -(-key.shape[2] // block), -(-state.prefix // block)
    scores = (query @ key.mT * state.scale).masked_fill((mass == 0).mT[:, None], float(BARRED))
    means = torch.ones(*scores.shape, dtype=torch.bool)
    if config.levels == 2:
        above, top_query = _averages(query, mass, block)
        top_scores = top_query @ _averages(key, mass, block)[1].mT * state.scale
        top_scores = top_scores.masked_fill((above == 0).mT[:, None], float(BARRED))
        best = top_scores.topk(min(config.top, upper)).indices
        taken = torch.zeros(top_scores.shape, dtype=torch.bool).scatter_(3, best, True)
        means = taken.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)[:, :, :blocks, :blocks]
        scores = scores + ~means * float(OUTSIDE)
        means = torch.cat([means, torch.ones(*means.shape[:3], upper, dtype=torch.bool)], dim=3)
    if state.prefix:
        scores[..., 0] += float(FORCED)
    seen = torch.zeros(scores.shape, dtype=torch.bool)
    seen.scatter_(3, scores.topk(min(config.top, blocks)).indices, True)
    seen = torch.cat([seen.repeat_interleave(block, dim=3)[..., :tokens], means], dim=3)
    seen[:, :, :whole, :tokens], seen[:, :, :whole, tokens:] = True, False
    return seen.repeat_interleave(block, dim=2)[:, :, :tokens]


def pooled(state: AttentionState, values: torch.Tensor, config: Config) -> tuple[torch.Tensor, ...]:
    """(B, h, P, d) keys and values, (B, P) how many tokens each holds: the means."""
    import torch

    mass, key = _averages(state.keys, state.size, config.block)
    value = _averages(values, state.size, config.block)[1]
    if config.levels == 1:
        return key, value, mass[..., 0]
    above, top_key = _averages(key, mass, config.block)
    top_value = _averages(value, mass, config.block)[1]
    joined = torch.cat([key, top_key], dim=2), torch.cat([value, top_value], dim=2)
    return *joined, torch.cat([mass, above], dim=1)[..., 0]


def _averages(x: torch.Tensor, mass: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, n, 1) and (B, h, n, d) by blocks."""
    import torch

    parts = [slice(start, start + block) for start in range(0, x.shape[2], block)]
    sums = torch.stack([mass[:, part].sum(dim=1) for part in parts], dim=1)
    weighted = torch.stack([(x[:, :, part] * mass[:, None, part]).sum(dim=2) for part in parts], dim=2)
    return sums, weighted / sums.clamp_min(float(NONE))[:, None]


ATTENTION = Attention(
    summary="each block of queries sees the blocks of keys whose means are nearest, and the means of all",
    paper="Trainable Log-linear Sparse Attention, https://arxiv.org/abs/2512.16615, section 3",
    examples=("llsa:top=2", "llsa:top=1,levels=2"),
    config=Config,
    lists=lists,
    reference=reference,
    serves="encoders and DiTs",
    pooled=pooled,
)
