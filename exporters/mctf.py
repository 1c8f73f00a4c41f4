"""MCTF: merge tokens that are alike, little attended to, and small; the block uses the attention that was looked at.

Multi-criteria Token Fusion with One-step-ahead Attention for Efficient Vision Transformers (CVPR 2024),
https://arxiv.org/abs/2403.10030, section 3.

In front of a block, from the attention that its queries and keys would give all tokens: the score of a pair is
((cosine + 1) / 2)^(1 / tau_sim) (u u')^(1 / tau_info) (z z')^(1 / tau_size), with the cosine of the tokens themselves,
u = 1 / attention received and z = 1 / size. Half of the r tokens go from A (even positions) into their best of B (odd),
the other half then from B, with what was merged into it, into the best of what is left of A. Means are weighted by
attention times size. The block's attention is the one already computed: summed over merged keys, averaged over merged
queries. The order behind it: prefix tokens, what is left of A, what is left of B by falling scores.

The published schedule is `mctf:r=16,layers=1-11` for DeiT with fine-tuning; off the shelf fewer should go.
`ahead=false` computes the block's attention anew from the merged tokens (`one_step_ahead=2` in the published code);
its third way, fusing behind the block, is not offered. `bidirectional=false` merges from A into B alone.

The graph ranks by the score to the power of tau_sim, so that no matrix is raised to a power. Where the published code
differs: attention received counts as 1e-3 (of heads times queries) at least, as it divides; equal scores fall to the
lower index; padding attends to nothing, goes first and changes nothing (it knows none); all prefix tokens are protected
(it fails for DeiT with a distillation token).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.exporters.tome import sets
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

LEAST = 1e-3  # attention received; ten times what MergeTokens still divides by
PADDING = 1e30  # above every score


@dataclass(frozen=True)
class Config:
    """Options of MCTF.

    Attributes:
        tau_sim: temperature of the similarity; the higher, the less it counts.
        tau_info: temperature of the attention received; "inf" leaves it out.
        tau_size: temperature of the size; "inf" leaves it out.
        bidirectional: whether half of the tokens go from B into A.
        ahead: whether the block uses the attention of the tokens before they were merged.
    """

    tau_sim: float = 1.0
    tau_info: float = 20.0
    tau_size: float = 40.0
    bidirectional: bool = True
    ahead: bool = True

    def __post_init__(self) -> None:
        for name in ("tau_sim", "tau_info", "tau_size"):
            if not getattr(self, name) > 0:
                raise UsageError(f"option {name}={getattr(self, name)}: accepted is a number above 0")
        if not self.tau_sim <= 4 * min(self.tau_info, self.tau_size):  # 1000^8 must fit into fp32
            raise UsageError(f"option tau_sim={self.tau_sim}: accepted is at most 4 times tau_info and tau_size")

    def split(self, count: int) -> tuple[int, int]:
        """How many tokens go from A, and how many from B."""
        return (count // 2, count - count // 2) if self.bidirectional else (count, 0)


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Match from A to B, and from B to what is left of A."""
    op, prefix = site.op, site.prefix
    a, b = sets(prefix, site.tokens)
    from_a, from_b = config.split(site.count)
    left_a, left_b = len(a) - from_a, len(b) - from_b
    received = _received(site)
    scores = _scores(site, received, config)
    padding = [site.part(site.is_padding, each.start, step=2) for each in (a, b)] if site.padded else [None, None]
    ranked, match = _match(site, scores, 2, *padding, len(a))
    gone, stay = site.part(ranked, 0, from_a), site.in_order(site.part(ranked, from_a), left_a)
    into = op.GatherElements(match, gone, axis=1)  # places in B
    if from_b == 0:
        rest, gone_b = site.per_sample(np.arange(len(b)) + len(a)), None
        destination = op.Add(into, np.array(prefix + left_a))
    else:
        if site.padded:
            padding[0] = op.GatherElements(padding[0], stay, axis=1)
        ranked, match = _match(site, site.gather(scores, stay), 1, padding[1], padding[0], len(b))
        rows = op.Add(op.GatherElements(match, site.part(ranked, 0, from_b), axis=1), np.array(prefix))
        of_ranks = op.Concat(rows, site.per_sample(np.arange(left_b) + prefix + left_a), axis=1)
        of_b = op.ScatterElements(ranked, ranked, of_ranks, axis=1)  # the row that each token of B ends in
        destination = op.Concat(op.GatherElements(of_b, into, axis=1), rows, axis=1)
        ranked = op.Add(ranked, np.array(len(a)))
        gone_b, rest = site.part(ranked, 0, from_b), site.part(ranked, from_b)
    order = op.Concat(*(each for each in (stay, rest, gone, gone_b) if each is not None), axis=1)  # places in A, then B
    order = op.Concat(site.per_sample(np.arange(prefix)), op.Gather(np.array([*a, *b]), order), axis=1)
    weight = op.Unsqueeze(received, np.array([2]))
    if site.size is not None:
        weight = op.Mul(weight, site.size)
    return Selection(order, destination, weight=weight, ahead=config.ahead)


def _received(site: Site) -> ir.Value:
    """(B, N) fp32: the attention that each token receives, summed over heads and queries."""
    op = site.op
    assert site.attention is not None
    real: object = np.ones((1, 1, 1, site.tokens), np.float32)
    if site.padded:
        real = op.Unsqueeze(op.Sub(np.float32(1), site.is_padding), np.array([1, 2]))
    sums = op.MatMul(real, site.attention.weights)  # (B, h, 1, N): at 197 tokens a fifth of ReduceSum's time
    return op.Max(op.ReduceSum(sums, np.array([1, 2]), keepdims=0), np.float32(LEAST))


def _scores(site: Site, received: ir.Value, config: Config) -> ir.Value:
    """(B, |A|, |B|) fp32: of every pair, to the power of tau_sim; 0 for padding."""
    op = site.op
    factor = op.Pow(received, np.float32(-config.tau_sim / config.tau_info))
    if site.size is not None:
        size = op.Squeeze(site.size, np.array([2]))
        size = op.Max(size, np.float32(1)) if site.padded else size
        factor = op.Mul(factor, op.Pow(size, np.float32(-config.tau_sim / config.tau_size)))
    if site.padded:
        factor = op.Mul(factor, op.Sub(np.float32(1), site.is_padding))
    a, b = sets(site.prefix, site.tokens)
    rows = [site.part(site.unit_hidden, each.start, step=2) for each in (a, b)]
    factors = [op.Unsqueeze(site.part(factor, each.start, step=2), np.array([axis])) for each, axis in ((a, 2), (b, 1))]
    cosine = op.MatMul(rows[0], op.Transpose(rows[1], perm=[0, 2, 1]))
    score: ir.Value = op.Mul(op.Mul(op.Add(cosine, np.float32(1)), factors[0]), factors[1])
    return score


def _match(
    site: Site, scores: ir.Value, axis: int, padding: ir.Value | None, barred: ir.Value | None, tokens: int
) -> tuple[ir.Value, ir.Value]:
    """The tokens that may go, the best matched first, padding before them; and of each one its best along an axis."""
    op = site.op
    if barred is not None:
        scores = op.Sub(scores, op.Unsqueeze(op.Mul(barred, np.float32(PADDING)), np.array([3 - axis])))
    best = op.ReduceMax(scores, np.array([axis]), keepdims=0)
    if padding is not None:
        best = op.Add(best, op.Mul(padding, np.float32(PADDING)))
    return site.ranked(best, tokens), op.ArgMax(scores, axis=axis, keepdims=0)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch, by the score of the paper."""
    import torch

    batch, tokens, _ = state.hidden.shape
    prefix = state.prefix
    a, b = (torch.tensor(list(places)) for places in sets(prefix, tokens))
    from_a, from_b = config.split(count)
    left_a, left_b = len(a) - from_a, len(b) - from_b
    padding = (state.size[..., 0] == 0).to(state.hidden.dtype)
    received = (state.attention * (1 - padding)[:, None, :, None]).sum(dim=(1, 2)).clamp_min(LEAST)
    scores = pair_scores(state, received, config)[:, a][:, :, b] * (1 - padding[:, a, None]) * (1 - padding[:, None, b])
    best, match = (scores - PADDING * padding[:, None, b]).max(dim=2)
    ranked = (best + PADDING * padding[:, a]).argsort(dim=1, descending=True, stable=True)
    gone_a, stay_a = ranked[:, :from_a], ranked[:, from_a:].sort(dim=1).values
    into = match.gather(1, gone_a)
    rank_b = torch.arange(len(b)).expand(batch, -1)
    back = torch.empty(batch, 0, dtype=torch.int64)
    if from_b:
        scores = scores.gather(1, stay_a[..., None].expand(-1, -1, len(b)))
        best, match = (scores - PADDING * padding[:, a].gather(1, stay_a)[..., None]).max(dim=1)
        rank_b = (best + PADDING * padding[:, b]).argsort(dim=1, descending=True, stable=True)
        back = match.gather(1, rank_b[:, :from_b]) + prefix
    rows = torch.cat([back, (torch.arange(left_b) + prefix + left_a).expand(batch, -1)], dim=1)
    chained = torch.empty_like(rank_b).scatter_(1, rank_b, rows).gather(1, into)
    fixed = torch.arange(prefix).expand(batch, -1)
    order = torch.cat([fixed, a[stay_a], b[rank_b[:, from_b:]], a[gone_a], b[rank_b[:, :from_b]]], dim=1)
    weight = received[..., None] * state.size
    return Selection(order, torch.cat([chained, back], dim=1), weight=weight, ahead=config.ahead)


def pair_scores(state: State, received: torch.Tensor, config: Config) -> torch.Tensor:
    """(B, N, N): the product of the three criteria."""
    import torch

    unit = torch.nn.functional.normalize(state.hidden, dim=-1)
    similarity = ((unit @ unit.mT + 1) / 2).clamp_min(0)
    informed, size = 1 / received, 1 / state.size[..., 0].clamp_min(1)
    criteria = ((similarity, config.tau_sim), (outer(informed), config.tau_info), (outer(size), config.tau_size))
    powers = [value.pow(1 / tau) for value, tau in criteria]
    return powers[0] * powers[1] * powers[2]


def outer(value: torch.Tensor) -> torch.Tensor:
    """(B, N) -> (B, N, N): the products of all pairs."""
    return value[:, :, None] * value[:, None]


TECHNIQUE = Technique(
    summary="merge tokens that are alike, little attended to and small, in front of a block",
    paper="Multi-criteria Token Fusion with One-step-ahead Attention, https://arxiv.org/abs/2403.10030, section 3",
    examples=("mctf:r=4", "mctf:keep=0.4,bidirectional=false,ahead=false"),
    config=Config,
    select=select,
    reference=reference,
    where="start",
)
