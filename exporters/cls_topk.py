"""cls-topk: keep the tokens that the class token attends to most, and fuse the others into one.

Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations (EViT, ICLR 2022),
https://arxiv.org/abs/2202.07800, section 3.2; published code: evit.py.

A token's score is the mean over heads of what the class token attends to. The tokens of the highest scores stay, the
best first; behind them stands one new token, the sum of the others weighted by their scores, which are not divided by
their sum (so it is a short vector, as published). It is a token like the others from there on. With `fuse=false` the
others are dropped. Attention never counts merged tokens. The paper's blocks are 3, 6 and 9 of 12, with `ratio=0.7`.

What differs: `ratio` counts the fused token among those that stay, where the published code adds it to them; prefix
tokens besides CLS stay (a distillation token or registers compete as patches there). Padding goes first, and has no
weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config:
    """Options of cls-topk.

    Attributes:
        fuse: whether the tokens that go are fused into one, or dropped.
    """

    fuse: bool = True


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Rank by the class token's attention; the first of the others is the place of the fused token."""
    op, free, count = site.op, site.tokens - site.prefix, site.count
    assert site.attention is not None
    score = op.ReduceMean(op.Squeeze(site.attention.class_weights, np.array([2])), np.array([1]), keepdims=0)  # (B, N)
    rank = site.part(score, site.prefix)
    if site.padded:
        rank = op.Sub(rank, site.part(site.is_padding, site.prefix))  # below every score
    places = op.Add(site.ranked(rank, free), np.array(site.prefix))
    order = op.Concat(site.per_sample(np.arange(site.prefix)), places, axis=1)
    if not config.fuse:
        return Selection(order, site.stand_ins(order), dropped=count, proportional=False)
    rest = site.part(order, site.tokens - count - 1)  # (B, count + 1), the fused token's place first
    ones = op.Squeeze(site.ones, np.array([2]))
    weight = op.ScatterElements(ones, rest, op.GatherElements(score, rest, axis=1), axis=1)
    return Selection(
        order,
        site.per_sample(np.full(count, site.tokens - count - 1)),
        weight=op.Unsqueeze(weight, np.array([2])),
        mean=False,
        proportional=False,
    )


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    batch, tokens, _ = state.hidden.shape
    score = state.attention[:, :, 0].mean(dim=1)  # (B, N)
    rank = (score - (state.size[..., 0] == 0).to(score.dtype))[:, state.prefix :]
    places = rank.argsort(dim=1, descending=True, stable=True) + state.prefix
    order = torch.cat([torch.arange(state.prefix).expand(batch, -1), places], dim=1)
    if not config.fuse:
        return Selection(order, state.stand_ins(order, count), dropped=count, proportional=False)
    rest = order[:, tokens - count - 1 :]
    weight = torch.ones_like(score).scatter(1, rest, score.gather(1, rest))
    fused = torch.full((batch, count), tokens - count - 1)
    return Selection(order, fused, weight=weight[..., None], mean=False, proportional=False)


TECHNIQUE = Technique(
    summary="keep what the class token attends to, fuse the rest into one token",
    paper="Not All Patches are What You Need (EViT), https://arxiv.org/abs/2202.07800, section 3.2",
    examples=("cls-topk:ratio=0.7,layers=1-3", "cls-topk:r=4,fuse=false", "cls-topk:ratio=0.3,layers=1/3"),
    config=Config,
    select=select,
    reference=reference,
    kind="prune",
    needs_class_token=True,
    at_most=1.0,
)
