"""double-sparsity: each token of a causal model attends to the tokens that score best on a few important channels.

Post-Training Sparse Attention with Double Sparsity, https://arxiv.org/abs/2408.07092, section 3; published code:
offline_calibration.py and modify_llama.py of andy-yang-1/DoubleSparse, whose channels and tokens this one's equal
(tests).

Offline, on the export's samples: the importance of a channel of a head is the mean over the tokens of |query x key|,
both of the same token and rotated, as attention sees them; the `channels` most important of each head of queries are
written into the graph. At run time queries and keys are compared on these channels alone (in a decoder with a cache
they are what its label cache holds), each query of each head takes the `tokens` keys that score best, and attends to
them with all channels. Nothing is always kept, neither the first token nor the query's own. For causal models. Cost:
channels / d of all scores, and a TopK over all keys for each query.

Single tokens are chosen, by each query of each head: `TokenSparseAttention` with lists of one query. Over a prompt that
is slower than dense attention on a CPU, by the TopK above all (docs/attention.md); what is shown is what a model loses
that decodes so.

What differs: the published converter quantises labels to 4 bits, and in nested modules whatever was asked for; labels
here are fp32. It takes its channels by |key| unless told otherwise; these are the paper's, by |query x key|. The
evaluation leaves the first two blocks dense: layers=2-29. Padding counts in no mean and is never chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from edgetok.attention import Attention, AttentionState, Lists, check_range, keys_of_density
from edgetok.exporters.attention import _pieces
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite

BARRED = np.float32(-1e6)


@dataclass(frozen=True)
class Config:
    """Options of double-sparsity.

    Attributes:
        tokens: that a query attends to, at most.
        channels: of a head that are compared to choose them; all where a head has fewer.
    """

    tokens: int = 256
    channels: int = 16
    block: ClassVar[int] = 1  # each query has a list of its own

    def __post_init__(self) -> None:
        check_range(self, "tokens", 1, 2**24)
        check_range(self, "channels", 1, 2**12)


def importance(site: AttentionSite) -> ir.Value:
    """(B, h, d) fp32: the mean of |query x key| over the tokens that are no padding."""
    op = site.op
    query, key = (op.Cast(value, to=ir.DataType.FLOAT) for value in (site.query, site.key))
    products = op.Abs(op.Mul(query, site.for_heads(key, site.width)))
    if site.size is None:
        mean: ir.Value = op.ReduceMean(products, np.array([2]), keepdims=0)
        return mean
    real = op.Unsqueeze(op.Cast(op.Greater(site.size, np.float32(0)), to=ir.DataType.FLOAT), np.array([1]))
    counted = op.Max(op.ReduceSum(real, np.array([2]), keepdims=0), np.float32(1))  # (B, 1, 1)
    out: ir.Value = op.Div(op.ReduceSum(op.Mul(products, real), np.array([2]), keepdims=0), counted)
    return out


def lists(site: AttentionSite, config: Config) -> Lists:
    """Compare on the important channels, take the best tokens."""
    assert site.measured is not None
    op, tokens = site.op, site.tokens
    order = np.argsort(-site.measured.mean(axis=0), axis=-1, kind="stable")[:, : config.channels]  # (h, r)
    picked = np.eye(site.width, dtype=np.float32)[order].transpose(0, 2, 1)  # (h, d, r): products with it are labels
    key = op.MatMul(site.for_heads(op.Cast(site.key, to=ir.DataType.FLOAT), site.width), picked)
    padding: ir.Value | None = None
    if site.size is not None:
        row = op.Where(op.Greater(site.size, np.float32(0)), np.float32(0), BARRED)  # (B, N, 1)
        padding = op.Unsqueeze(row, np.array([1]))
    most, step = min(config.tokens, tokens), _pieces.length(site, tokens, tokens)
    ahead = constant(op.graph, np.triu(np.full((step, step), 2 * BARRED, np.float32), k=1))

    def best(first: int, last: int) -> ir.Value:
        query = op.Cast(_pieces.rows(op, site.query, first, last, tokens), to=ir.DataType.FLOAT)
        query = op.MatMul(query, picked)

        def score(low: int, high: int) -> ir.Value:
            keys = op.Transpose(_pieces.rows(op, key, low, high, tokens), perm=[0, 1, 3, 2])
            scores: ir.Value = op.MatMul(query, keys)  # (B, h, last - first, high - low)
            if padding is not None:
                row = _pieces.rows(op, padding, low, high, tokens)
                scores = op.Add(scores, op.Transpose(row, perm=[0, 1, 3, 2]))
            return scores

        return _pieces.best(op, _pieces.causal(op, score, first, (last - first,) * 2, ahead), last, most)

    index = _pieces.joined(op, [best(first, min(first + step, tokens)) for first in range(0, tokens, step)])
    visible = np.minimum(np.arange(tokens) + 1, most)
    count = constant(op.graph, visible[None, None].astype(np.int32))
    count = op.Expand(count, op.Concat(op.Shape(index, start=0, end=2), np.array([1]), axis=0))
    density = float(visible.sum() / (tokens * (tokens + 1) // 2))
    return Lists(index, count, 0, density=density, block_k=1)


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by a loop over the queries."""
    import torch

    assert state.measured is not None
    tokens = state.keys.shape[2]
    channels = state.measured.mean(dim=0).topk(min(config.channels, state.keys.shape[3])).indices  # (h, r)
    index = channels[None, :, None].expand(len(state.keys), -1, tokens, -1)
    queries, keys = state.queries.gather(3, index), state.keys.gather(3, index)
    padding = torch.where(state.size > 0, 0.0, float(BARRED)).mT[:, None]  # (B, 1, 1, N)
    seen = torch.zeros(*state.keys.shape[:2], tokens, tokens, dtype=torch.bool)
    for row in range(tokens):
        scores = (queries[:, :, row : row + 1] @ keys[:, :, : row + 1].mT + padding[..., : row + 1])[:, :, 0]
        seen[:, :, row].scatter_(2, scores.topk(min(config.tokens, row + 1)).indices, True)
    return seen


ATTENTION = Attention(
    summary="each token of a causal model sees the tokens that score best on the channels that matter on the samples",
    paper="Double Sparsity, https://arxiv.org/abs/2408.07092, section 3",
    examples=("double-sparsity:tokens=20,channels=4",),
    config=Config,
    lists=lists,
    reference=reference,
    serves="causal models",
    measures=importance,
    of_density=lambda config, density, tokens: replace(config, tokens=keys_of_density(density, tokens)),
)
