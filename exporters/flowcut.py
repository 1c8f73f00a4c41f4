"""flowcut: drop, every second block, the tokens through which little of the class token's information flows.

FlowCut: Rethinking Redundancy via Information Flow for Efficient Vision-Language Models (NeurIPS 2025),
https://arxiv.org/abs/2505.19536, section 4; published code: modeling_clip_flowcut.py, utils_flowcut.py.

In each block a patch's score is its share of what the class token attends to, plus its share of what the class token's
value is akin to (the softmax of the products of values, unscaled; both means over heads), times the L1 norm of its
value (mean over heads). The scores run through the blocks: half of the past, half of the block's. A reduction drops the
lowest of them from what a block gave out: `layers=2/4/6` names the blocks in front of which tokens go, so that the
paper's, behind blocks 1, 3, ..., 21 of CLIP's first 23, are 2, 4, ..., 22. What stays is in raster order.

What differs: the published counts depend on the picture. With n patches left, t wanted in the end and s the blocks from
here to the last reduction, (n - t) / sqrt(s) (1 - (H / log n)^2) go, H being the entropy of what the class token
attends to, and the most of any sample in the batch counts; the last reduction drops all above t. A graph's counts are
fixed: give them block by block, r=12/13/23, or let keep= spread them evenly. Running scores go on to the last block;
padding, which the paper does not know, has none and goes first. The second cut, within the language model, is not the
encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

BARRED = -1e4  # added where the softmax must not look


@dataclass(frozen=True)
class Config:
    """Options of flowcut.

    Attributes:
        past: the share of the past in the running score.
    """

    past: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.past < 1:
            raise UsageError(f"option past={self.past}: accepted is a number from 0 to below 1")


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value:
    """(B, N, 1) the running score; of the prefix it is of no use."""
    op = site.op
    assert site.attention is not None
    value = op.Cast(site.value, to=ir.DataType.FLOAT)  # (B, h, N, d)
    first = op.Slice(value, np.array([0]), np.array([1]), np.array([2]))
    kinship = op.MatMul(first, op.Transpose(value, perm=[0, 1, 3, 2]))  # (B, h, 1, N)
    if site.padded:
        barred = op.Mul(site.is_padding, np.float32(BARRED))
        kinship = op.Add(kinship, op.Unsqueeze(barred, np.array([1, 2])))
    akin = op.ReduceMean(op.Softmax(kinship, axis=-1), np.array([1, 2]), keepdims=0)  # (B, N)
    shares = [
        op.Div(row, op.ReduceSum(site.part(row, site.prefix), np.array([1])))
        for row in (site.attention.class_row, akin)
    ]
    norm = op.ReduceL1(op.ReduceMean(value, np.array([1]), keepdims=0), np.array([2]), keepdims=0)
    score = op.Unsqueeze(op.Mul(op.Add(*shares), norm), np.array([2]))
    if memory is None:
        return score
    past = op.Mul(memory, np.float32(config.past))
    running: ir.Value = op.Add(past, op.Mul(score, np.float32(1 - config.past)))
    return running


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    kinship = state.values[:, :, :1] @ state.values.mT
    kinship = kinship + BARRED * (state.size == 0).to(kinship.dtype)[:, None, None, :, 0]
    akin = kinship.softmax(dim=-1).mean(dim=(1, 2))
    shares = [row / row[:, state.prefix :].sum(dim=1, keepdim=True) for row in (state.class_row, akin)]
    score = (sum(shares) * state.values.mean(dim=1).abs().sum(dim=2))[..., None]
    return score if memory is None else config.past * memory + (1 - config.past) * score


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Those of the highest running scores stay."""
    if site.memory is None:
        raise UsageError(
            "flowcut has seen nothing in front of block 0: name the blocks in front of which tokens go, layers=2/4/6"
        )
    order = site.keep_highest(site.op.Squeeze(site.memory, np.array([2])))
    return Selection(order, site.stand_ins(order), dropped=site.count, proportional=False)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    assert state.memory is not None
    order = state.keep_highest(state.memory[..., 0], count)
    return Selection(order, state.stand_ins(order, count), dropped=count, proportional=False)


TECHNIQUE = Technique(
    summary="drop, every second block, what little of the class token's information flows through",
    paper="FlowCut, https://arxiv.org/abs/2505.19536, section 4",
    examples=("flowcut:keep=0.25,layers=1/3", "flowcut:r=3/10,layers=2-3"),
    config=Config,
    select=select,
    reference=reference,
    where="start",
    kind="prune",
    observe=Observe(observe, observed),
    needs_class_token=True,
    at_most=1.0,
)
