"""todre: behind the encoder keep the most attended token, and then always the one least like all that are kept.

ToDRE: Effective Visual Token Pruning via Token Diversity and Task Relevance, https://arxiv.org/abs/2505.18757 (second
version), section 3, its first stage; there is no published code.

The first token is the one that the class token attends to most in the last block (mean over heads). The next is always
the one whose cosines to the tokens chosen so far have the smallest sum; DivPrune takes the largest such cosine instead.
What stays stands in its places' order.

What differs: without a class token the first is the token least like all others, where the paper draws one (both lose
0.2 % against the class token there). The second stage drops what is left of the tokens in the language model, by what
the text attends to, and is no part of an encoder. The paper does not say in what order the tokens stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

PADDING = 4.0  # taken off a gain, which is -1 to 1: padding goes first
MANY = 1e5  # times that off what decides on the first token, a sum over all tokens at most


@dataclass(frozen=True)
class Config:
    """todre has no options."""


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """What the class token attends to in the last block."""
    if site.block < site.blocks - 1 or not site.prefix:
        return memory
    assert site.attention is not None
    return site.op.Unsqueeze(site.attention.class_row, np.array([2]))


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    if state.block < state.blocks - 1 or not state.prefix:
        return memory
    return state.class_row[..., None]


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The next token is always the one of the smallest sum."""
    op, kept = site.op, site.tokens - site.prefix - site.count
    unit, barred = site.part(site.unit_hidden, site.prefix), None
    if site.size is not None:
        padding = site.part(site.is_padding, site.prefix)
        barred = op.Mul(padding, np.float32(PADDING))
        unit = op.Mul(unit, op.Unsqueeze(op.Sub(np.float32(1), padding), np.array([2])))  # it resembles nothing
    gain = op.Neg(op.MatMul(unit, op.Transpose(unit, perm=[0, 2, 1])))  # (B, T, T)
    if site.memory is None:
        start = op.ReduceSum(gain, np.array([1]), keepdims=0)
    else:
        start = op.Squeeze(site.part(site.memory, site.prefix), np.array([2]))
    if barred is not None:
        gain, start = op.Sub(gain, op.Unsqueeze(barred, np.array([1]))), op.Sub(start, op.Mul(barred, np.float32(MANY)))
    index = op.GreedySelect(gain, start, domain="edgetok", count=kept, objective="max_sum")
    return Selection(site.keep_chosen(index), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.greedy_select import reference as greedy

    unit = torch.nn.functional.normalize(state.hidden[:, state.prefix :], dim=-1)
    padding = (state.size[:, state.prefix :, 0] == 0).to(unit.dtype)
    unit = unit * (1 - padding)[..., None]
    gain = -unit @ unit.mT
    start = gain.sum(dim=1) if state.memory is None else state.memory[:, state.prefix :, 0]
    gain, start = gain - PADDING * padding[:, None], start - MANY * PADDING * padding
    return Selection(state.keep_chosen(greedy(gain, start, unit.shape[1] - count, "max_sum")), None)


TECHNIQUE = Technique(
    summary="keep the most attended token, then always the one least like all that are kept",
    paper="ToDRE, https://arxiv.org/abs/2505.18757, section 3, stage 1",
    examples=("todre:keep=0.25",),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
)
