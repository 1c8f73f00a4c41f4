"""greedyprune: behind the encoder keep what the class token attends to, but nothing that resembles what is kept.

GreedyPrune: Retenting Critical Visual Token Set for Large Vision Language Models, https://arxiv.org/abs/2506.13166,
section 3; there is no published code.

The tokens are visited by their saliency, the highest first, and one is kept if its cosines to all that are kept are at
most `tau`. What stays stands in its places' order. The saliency is what the class token attends to in the last block
(mean over heads): the paper's attention from the text is not there in an encoder.

What differs: the paper's count depends on the picture; here it is fixed, so where fewer pass the rest is filled up from
the rejected by saliency, and where more would pass the least salient go. The paper's tau and layer could not be looked
up: the defaults are ours. With tau=1 nothing is rejected, and saliency alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.exporters._last_class_row import LAST_CLASS_ROW
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

PADDING = 4.0  # taken off a saliency, which is 0 to 1, or 1 less for a rejected token: padding goes first


@dataclass(frozen=True)
class Config:
    """Options of greedyprune.

    Attributes:
        tau: the cosine above which a token is too much like one that is kept.
    """

    tau: float = 0.8

    def __post_init__(self) -> None:
        if not -1 <= self.tau <= 1:
            raise UsageError(f"option tau={self.tau:g}: accepted is a cosine from -1 to 1")


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The highest saliency first; a token too much like a kept one is behind all that are not."""
    import onnx_ir as ir

    assert site.memory is not None
    op, kept = site.op, site.tokens - site.prefix - site.count
    unit = site.part(site.unit_hidden, site.prefix)
    alike = op.Greater(op.MatMul(unit, op.Transpose(unit, perm=[0, 2, 1])), np.float32(config.tau))
    saliency = op.Squeeze(site.part(site.memory, site.prefix), np.array([2]))
    saliency = op.Div(saliency, op.ReduceMax(saliency, np.array([1])))  # 0 to 1: digits are left beside the 1 below
    if site.size is not None:
        saliency = op.Sub(saliency, op.Mul(site.part(site.is_padding, site.prefix), np.float32(PADDING)))
    gain = op.Sub(op.Unsqueeze(saliency, np.array([1])), op.Cast(alike, to=ir.DataType.FLOAT))
    index = op.GreedySelect(gain, saliency, domain="edgetok", count=kept, objective="max_min")
    return Selection(site.keep_chosen(index), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.greedy_select import reference as greedy

    assert state.memory is not None
    unit = torch.nn.functional.normalize(state.hidden[:, state.prefix :], dim=-1)
    saliency = state.memory[:, state.prefix :, 0]
    saliency = saliency / saliency.amax(dim=1, keepdim=True)
    saliency = saliency - PADDING * (state.size[:, state.prefix :, 0] == 0).to(unit.dtype)
    gain = saliency[:, None] - (unit @ unit.mT > config.tau).to(unit.dtype)
    return Selection(state.keep_chosen(greedy(gain, saliency, unit.shape[1] - count, "max_min")), None)


TECHNIQUE = Technique(
    summary="keep what the class token attends to, but nothing that resembles what is kept",
    paper="GreedyPrune, https://arxiv.org/abs/2506.13166, section 3",
    examples=("greedyprune:keep=0.25,tau=0.3",),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=LAST_CLASS_ROW,
    needs_class_token=True,
)
