"""spatten: keep the tokens that all tokens attended to, summed over heads and over the blocks so far.

SpAtten: Efficient Sparse Attention Architecture with Cascade Token and Head Pruning (HPCA 2021),
https://arxiv.org/abs/2012.09852, section III-A: cascade token pruning, on an encoder.

A token's importance is the sum of the attention weights that it receives, over heads, queries and all blocks so far,
this one included; it is never reset. The tokens of the highest importance stay, in their places' order. One that goes
is gone for every later block, and what it gave to others stays counted. The weights are those of the whole attention
map, which the block then uses as well.

The authors published no encoder form; their code for language models chooses per block and head among the cached keys,
from the current queries alone. Left out are the paper's pruning of heads and of values, which need a kernel of their
own. The paper knows no padding: here a padded query counts nothing, because what it attends to is not asked for, and
padding goes first. Prefix tokens stay.
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


@dataclass(frozen=True)
class Config:
    """spatten has no options."""


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value:
    """(B, N, 1): add what every token receives in this block."""
    op = site.op
    assert site.attention is not None
    weights = site.attention.weights  # (B, h, N, N)
    if site.padded:
        real = op.Unsqueeze(op.Sub(np.float32(1), site.is_padding), np.array([1]))  # (B, 1, N)
        received = op.MatMul(real, op.ReduceSum(weights, np.array([1]), keepdims=0))
        received = op.Transpose(received, perm=[0, 2, 1])
    else:
        received = op.Unsqueeze(op.ReduceSum(weights, np.array([1, 2]), keepdims=0), np.array([2]))
    return received if memory is None else op.Add(memory, received)


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    real = (state.size > 0).to(state.hidden.dtype)  # (B, N, 1)
    received = (state.attention.sum(dim=1) * real).sum(dim=1)[..., None]
    return received if memory is None else memory + received


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The tokens of the highest importance, in the order of their places."""
    score = site.op.Squeeze(site.memory, np.array([2]))
    if site.padded:
        score = site.op.Sub(score, site.is_padding)  # below every importance
    order = site.keep_highest(score)
    return Selection(order, site.stand_ins(order), dropped=site.count, proportional=False)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    assert state.memory is not None
    padding = (state.size[..., 0] == 0).to(state.memory.dtype)
    order = state.keep_highest(state.memory[..., 0] - padding, count)
    return Selection(order, state.stand_ins(order, count), dropped=count, proportional=False)


TECHNIQUE = Technique(
    summary="keep what all tokens attended to over the blocks so far",
    paper="SpAtten, https://arxiv.org/abs/2012.09852, section III-A",
    examples=("spatten:r=4", "spatten:ratio=0.6,layers=1/3"),
    config=Config,
    select=select,
    reference=reference,
    kind="prune",
    observe=Observe(observe, observed),
    at_most=1.0,
)
