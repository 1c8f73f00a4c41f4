"""divprune: behind the encoder keep tokens that lie far from each other.

DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models (CVPR 2025),
https://arxiv.org/abs/2503.02175, section 3.3; published code: DivPrune in llava_arch.py.

Max-min diversity by cosine distance, greedily: the first token is the one whose nearest other is farthest, and the next
is always the one whose nearest chosen token is farthest. What stays stands in its places' order. Nothing but the
features counts: no attention is read, and no class token is needed.

What differs: a token is never chosen twice, where the published code returns one of several duplicates again and again;
each picture has its own budget, where the code has one for all crops; prefix tokens stay and count for nothing.
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

PADDING = -4.0  # added to a distance, which is at most 2: padding goes first


@dataclass(frozen=True)
class Config:
    """divprune has no options."""


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The next token is always the farthest."""
    op, kept = site.op, site.tokens - site.prefix - site.count
    bias: object = np.zeros((1, 1), np.float32)
    if site.size is not None:
        bias = op.Mul(site.part(site.is_padding, site.prefix), np.float32(PADDING))
    unit = site.part(site.unit_hidden, site.prefix)
    index = op.FarthestPoints(unit, np.ones((1, 1), np.float32), bias, domain="edgetok", count=kept)
    return Selection(site.keep_chosen(index), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.farthest_points import reference as farthest

    unit = torch.nn.functional.normalize(state.hidden[:, state.prefix :], dim=-1)
    bias = PADDING * (state.size[:, state.prefix :, 0] == 0).to(unit.dtype)
    index = farthest(unit, torch.ones(1, 1, dtype=unit.dtype), bias, unit.shape[1] - count)
    return Selection(state.keep_chosen(index), None)


TECHNIQUE = Technique(
    summary="keep tokens that lie far from each other",
    paper="DivPrune, https://arxiv.org/abs/2503.02175, section 3.3",
    examples=("divprune:keep=0.25",),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
)
