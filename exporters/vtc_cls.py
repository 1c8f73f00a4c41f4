"""vtc-cls: behind the encoder keep the tokens that the class token attended to, summed over the last blocks.

[CLS] Token Tells Everything Needed for Training-free Efficient MLLMs, https://arxiv.org/abs/2412.05819, section 3;
published code: cls_token_only and encode_images.

A token's score is the sum over the blocks from `first` to the last but one of what the class token attends to, averaged
over heads. The tokens of the highest scores stay, in their places' order. In LLaVA the features come from the last
block but one, whose successor the published code leaves out (`attentions[start:-1]`); give `last=-1` to count all
blocks where the encoder was cut there before.
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
        first: the first block whose attention counts; negative from the end. The paper's is 16 of 24.
        last: the last one.
    """

    first: int = -8
    last: int = -2

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
    row = op.ReduceMean(op.Squeeze(site.attention.class_weights, np.array([2])), np.array([1]), keepdims=0)
    row = op.Unsqueeze(row, np.array([2]))  # (B, N, 1)
    return row if memory is None else op.Add(memory, row)


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    if not config.counts(state.block, state.blocks):
        return memory
    row = state.attention[:, :, 0].mean(dim=1)[..., None]
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
