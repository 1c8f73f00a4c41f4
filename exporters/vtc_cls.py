"""vtc-cls: behind the encoder keep the tokens that the class token attended to, summed over the last blocks.

[CLS] Token Tells Everything Needed for Training-free Efficient MLLMs, https://arxiv.org/abs/2412.05819, section 3;
published code: cls_token_only and encode_images.

A token's score is the sum over the blocks from `first` to `last` of what the class token attends to, averaged over
heads. The tokens of the highest scores stay, in their places' order. The published code takes the features of block 22
of CLIP's 24 and sums over blocks 16 to 22; a source that gives out block 22 is exported without block 23, which nothing
reads, so that these are blocks -7 to -1 of its graph.
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
    """Options of vtc-cls.

    Attributes:
        first: the first block whose attention counts; negative from the end.
        last: the last one.
    """

    first: int = -7
    last: int = -1

    def counts(self, block: int, blocks: int) -> bool:
        """Whether a block's attention counts."""
        first, last = (at if at >= 0 else blocks + at for at in (self.first, self.last))
        return first <= block <= last


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """Add what the class token attends to."""
    op = site.op
    if not config.counts(site.block, site.blocks):
        return memory
    assert site.attention is not None
    row = op.Unsqueeze(site.attention.class_row, np.array([2]))  # (B, N, 1)
    return row if memory is None else op.Add(memory, row)


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    if not config.counts(state.block, state.blocks):
        return memory
    row = state.class_row[..., None]
    return row if memory is None else memory + row


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The highest scores, in the order of their places."""
    return Selection(site.keep_highest(site.op.Squeeze(site.memory, np.array([2]))), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    assert state.memory is not None
    return Selection(state.keep_highest(state.memory[..., 0], count), None)


TECHNIQUE = Technique(
    summary="keep what the class token attended to over the last blocks",
    paper="[CLS] Token Tells Everything Needed, https://arxiv.org/abs/2412.05819, section 3",
    examples=("vtc-cls:keep=0.25", "vtc-cls:keep=0.6,first=0,last=2"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
    needs_class_token=True,
)
