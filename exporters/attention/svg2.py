"""svg2: tokens are sorted by clusters, and blocks attend to the clusters that hold most of the attention.

Sparse VideoGen2: Accelerate Video Generation with Sparse Attention via Semantic-Aware Permutation,
https://arxiv.org/abs/2505.18875, sections 4.1 to 4.3; published code: identify_dynamic_map and kmeans_utils of
svg-project/Sparse-VideoGen, whose clusters and map of pairs this one's equal (tests).

Each head clusters its queries and its keys by k-means, `rounds` of it from evenly spaced tokens. The centroids say
which share of a query cluster's attention a key cluster gets, its size counted; by falling share key clusters are taken
until those before hold `mass`, and `least` of them at any rate. Queries and keys are sorted by cluster, and a block of
queries attends to the blocks of keys that its clusters' pairs touch, those with the largest shares first, up to `most`
of all. Behind attention tokens stand in their order again. Always kept: the block that holds the prefix; not the token
itself. For diffusion transformers and other encoders. Cost: N (queries + keys) d rounds products, two sorts, three
gathers.

What differs: the published kernel takes clusters as blocks of any length, here blocks have one length and may hold
parts of several clusters; k-means starts at random tokens there, runs until it stays, and goes on from the step before;
its first layers and steps are dense (here `layers=`). It takes one sample; here padding is sorted to the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite


NOTHING = np.float32(1e-6)  # tokens' worth of attention: a block that gets less is not listed


@dataclass(frozen=True)
class Config:
    """Options of svg2.

    Attributes:
        queries: clusters of queries.
        keys: clusters of keys.
        rounds: of k-means.
        mass: the share of the estimated attention that the key clusters of a query cluster hold.
        least: the share of the key clusters that are taken at any rate.
        most: the longest list, as a share of the blocks.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    queries: int = 32
    keys: int = 64
    rounds: int = 3
    mass: float = 0.9
    least: float = 0.1
    most: float = 0.25
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        for name, low, high in (("queries", 1, 4096), ("keys", 1, 4096), ("rounds", 1, 64)):
            check_range(self, name, low, high)
        for name in ("mass", "least", "most"):
            check_range(self, name, 0.0 if name == "least" else 0.001, 1)

    def longest(self, blocks: int) -> int:
        """The longest list among so many blocks."""
        return min(blocks, max(2, ceil(self.most * blocks)))


def lists(site: AttentionSite, config: Config) -> Lists:
    """Cluster, share, sort, and list. Heads stand in the batch, for each sorts its tokens for itself."""
    op, tokens, blocks = site.op, site.tokens, site.blocks(config.block)
    flat = np.array([-1, tokens, site.width])
    query = op.Reshape(site.query, flat)  # (B h, N, d)
    key, value = (op.Reshape(site.for_heads(each, site.width), flat) for each in (site.key, site.value))
    real = _per_head(site, op.Squeeze(site.size, np.array([2]))) if site.size is not None else None  # (B h, N)
    of_query, query_means, _ = _clusters(site, query, real, config.queries, config.rounds)
    of_key, key_means, sizes = _clusters(site, key, real, config.keys, config.rounds)

    logits = op.MatMul(op.Mul(query_means, np.float32(site.scale)), op.Transpose(key_means, perm=[0, 2, 1]))
    logits = op.Add(logits, op.Unsqueeze(op.Log(op.Max(sizes, np.float32(1e-30))), np.array([1])))
    share, of_share = op.TopK(op.Softmax(logits, axis=2), np.array([config.keys]), axis=2, outputs=2)
    before = op.CumSum(share, np.array(2), exclusive=1)
    least = np.arange(config.keys) < int(config.least * config.keys)
    kept = op.Cast(op.Or(op.LessOrEqual(before, np.float32(config.mass)), least), to=ir.DataType.FLOAT)
    share = op.ScatterElements(op.Mul(logits, np.float32(0)), of_share, op.Mul(share, kept), axis=2)

    query_order = _order(site, of_query, real, config.queries)
    key_order = _order(site, of_key, real, config.keys)
    in_rows = _members(site, of_query, query_order, real, config.block, config.queries)
    in_columns = _members(site, of_key, key_order, real, config.block, config.keys)
    each = op.Div(in_columns, op.Max(op.ReduceSum(in_columns, np.array([1])), np.float32(1)))  # (B h, K, keys)
    score = op.MatMul(op.MatMul(in_rows, share), op.Transpose(each, perm=[0, 2, 1]))  # (B h, Q, K)
    if site.prefix:
        score = op.Add(score, np.float32(1e6) * (np.arange(blocks) * config.block < site.prefix))
    most = config.longest(blocks)
    taken, index = op.TopK(op.Unsqueeze(score, np.array([1])), np.array([most]), axis=3, outputs=2)
    count = op.ReduceSum(op.Cast(op.Greater(taken, NOTHING), to=ir.DataType.INT32), np.array([3]), keepdims=0)

    def sort(x: ir.Value, order: ir.Value) -> ir.Value:
        out: ir.Value = op.Unsqueeze(op.KeepTokens(x, order, domain="edgetok"), np.array([1]))
        return out

    def restore(attended: ir.Value) -> ir.Value:
        places = op.Add(op.Mul(query_order, np.array(0)), np.arange(tokens))
        back = op.ScatterElements(query_order, query_order, places, axis=1)
        rows = op.KeepTokens(op.Squeeze(attended, np.array([1])), back, domain="edgetok")
        out: ir.Value = op.Reshape(rows, np.array([-1, site.heads, tokens, site.width]))
        return out

    bias = None
    if site.bias is not None:
        bias = op.GatherElements(_per_head(site, site.bias_row()), key_order, axis=1)
    return Lists(
        op.Cast(index, to=ir.DataType.INT32), count, 0, density=most / blocks, query=sort(query, query_order),
        key=sort(key, key_order), value=sort(value, key_order), bias=bias, restore=restore,
    )  # fmt: skip


def _per_head(site: AttentionSite, row: ir.Value | np.ndarray) -> ir.Value:
    """(B, N) -> (B h, N)."""
    op = site.op
    spread = op.Expand(op.Unsqueeze(row, np.array([1])), np.array([1, site.heads, 1]))
    out: ir.Value = op.Reshape(spread, np.array([-1, site.tokens]))
    return out


def _clusters(
    site: AttentionSite, x: ir.Value, real: ir.Value | None, count: int, rounds: int
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(B h, N) int64 clusters of x (B h, N, d), (B h, C, d) their means, (B h, C) fp32 how many tokens each holds."""
    op = site.op
    x = op.Cast(x, to=ir.DataType.FLOAT)
    means = op.Gather(x, _starts(site.tokens, count), axis=1)
    for _ in range(rounds):
        norms = op.Mul(op.ReduceSumSquare(means, np.array([2]), keepdims=0), np.float32(0.5))
        nearness = op.Sub(op.MatMul(x, op.Transpose(means, perm=[0, 2, 1])), op.Unsqueeze(norms, np.array([1])))
        of = op.ArgMax(nearness, axis=2, keepdims=0)
        one_hot = op.Cast(op.Equal(op.Unsqueeze(of, np.array([2])), np.arange(count)), to=ir.DataType.FLOAT)
        if real is not None:
            one_hot = op.Mul(one_hot, op.Unsqueeze(real, np.array([2])))  # merged tokens count as often
        held = op.Transpose(one_hot, perm=[0, 2, 1])
        sizes = op.ReduceSum(held, np.array([2]))
        new = op.Div(op.MatMul(held, x), op.Max(sizes, np.float32(1e-6)))
        means = op.Where(op.Greater(sizes, np.float32(0)), new, means)  # one that is empty stays where it was
    return of, means, op.Squeeze(sizes, np.array([2]))


def _starts(tokens: int, count: int) -> np.ndarray:
    """The tokens at which clusters begin, evenly spaced."""
    return np.linspace(0, tokens - 1, count).round().astype(np.int64)


def _order(site: AttentionSite, of: ir.Value, real: ir.Value | None, count: int) -> ir.Value:
    """(B h, N) int64: the places of the tokens, cluster by cluster; the prefix first, padding last."""
    op, place = site.op, np.arange(site.tokens)
    of = op.Where(place < site.prefix, np.array(-1), of)
    if real is not None:
        of = op.Where(op.Greater(real, np.float32(0)), of, np.array(count))
    rank = op.Add(op.Mul(of, np.array(site.tokens)), place)
    _, order = op.TopK(rank, np.array([site.tokens]), axis=1, largest=0, outputs=2)
    out: ir.Value = order
    return out


def _members(
    site: AttentionSite, of: ir.Value, order: ir.Value, real: ir.Value | None, block: int, count: int
) -> ir.Value:
    """(B h, blocks, C) fp32: how many tokens of a cluster each block of sorted tokens holds."""
    op, blocks = site.op, site.blocks(block)
    fill = blocks * block - site.tokens
    of = op.GatherElements(of, order, axis=1)
    if real is not None:
        there = op.Greater(op.GatherElements(real, order, axis=1), np.float32(0))
        of = op.Where(there, of, np.array(count))
    of = op.Pad(of, np.array([0, 0, 0, fill]), np.array(count)) if fill else of
    of = op.Reshape(of, np.array([0, blocks, block, 1]))
    counted = op.ReduceSum(op.Cast(op.Equal(of, np.arange(count)), to=ir.DataType.FLOAT), np.array([2]), keepdims=0)
    out: ir.Value = counted
    return out


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, head by head."""
    import torch

    batch, heads, tokens, _ = state.queries.shape
    block, blocks = config.block, -(-tokens // config.block)
    seen = torch.zeros(batch, heads, tokens, tokens, dtype=torch.bool)
    starts = [torch.from_numpy(_starts(tokens, count)) for count in (config.queries, config.keys)]
    for sample, head in torch.cartesian_prod(torch.arange(batch), torch.arange(heads)).tolist():
        size, query, key = state.size[sample, :, 0], state.queries[sample, head], state.keys[sample, head]
        of_query, query_means, _ = k_means(query, size, query[starts[0]], config.rounds)
        of_key, key_means, sizes = k_means(key, size, key[starts[1]], config.rounds)
        share, kept = pairs(query_means, key_means, sizes, state.scale, config.mass, config.least)
        share = share * kept
        order = []
        for of, count in ((of_query, config.queries), (of_key, config.keys)):
            rank = of.masked_fill(torch.arange(tokens) < state.prefix, -1).masked_fill(size == 0, count)
            order.append((rank * tokens + torch.arange(tokens)).argsort())
        held = torch.stack([(of_key[size > 0] == j).sum() for j in range(config.keys)]).clamp_min(1)
        score = torch.zeros(blocks, blocks, dtype=share.dtype)
        for row in range(blocks):
            rows = [i for i in order[0][row * block : (row + 1) * block].tolist() if size[i] > 0]
            wanted = share[of_query[rows]].sum(dim=0) / held
            for column in range(blocks):
                columns = [j for j in order[1][column * block : (column + 1) * block].tolist() if size[j] > 0]
                score[row, column] = wanted[of_key[columns]].sum()
        score += 1e6 * (torch.arange(blocks) * block < state.prefix)
        for row in range(blocks):
            best = score[row].sort(descending=True, stable=True).indices[: config.longest(blocks)].tolist()
            taken = [column for column in best if score[row, column] > NOTHING]
            listed = torch.cat([order[1][c * block : (c + 1) * block] for c in taken] or [order[1][:0]])
            seen[sample, head, order[0][row * block : (row + 1) * block, None], listed] = True
    return seen


def k_means(
    x: torch.Tensor, size: torch.Tensor, means: torch.Tensor, rounds: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clusters (N,) of x (N, d), their means (C, d), and how many tokens each holds (C,)."""
    import torch

    for _ in range(rounds):
        of = ((x[:, None] - means) ** 2).sum(dim=2).argmin(dim=1)
        sizes = torch.stack([size[of == j].sum() for j in range(len(means))])
        sums = torch.stack([(x * size[:, None])[of == j].sum(dim=0) for j in range(len(means))])
        means = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1e-6), means)
    return of, means, sizes


def pairs(
    query_means: torch.Tensor, key_means: torch.Tensor, sizes: torch.Tensor, scale: float, mass: float, least: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(queries, keys) the shares of attention that key clusters get, and which of them are taken."""
    import torch

    share = (query_means @ key_means.mT * scale + sizes.clamp_min(1e-30).log()).softmax(dim=1)
    ordered, index = share.sort(dim=1, descending=True)
    kept = (ordered.cumsum(dim=1) - ordered <= mass) | (torch.arange(len(sizes)) < int(least * len(sizes)))
    return share, torch.zeros_like(kept).scatter_(1, index, kept)


ATTENTION = Attention(
    summary="tokens are sorted by clusters, and blocks see the clusters that hold most of the attention",
    paper="Sparse VideoGen2, https://arxiv.org/abs/2505.18875, sections 4.1 to 4.3",
    examples=("svg2:queries=3,keys=5,most=0.5,block=16", "svg2:queries=4,keys=4,rounds=1,mass=0.6,most=1,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
    serves="encoders and DiTs",
)
