"""hiprune: behind the encoder keep objects by a middle block's attention, and the gist by the last block's.

HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models,
https://arxiv.org/abs/2508.00553, section 3; published code: encode_images (LLaVA).

A token's score is the attention it receives, averaged over heads and over all queries, CLS among them. Of the K tokens
that stay, K alpha / 5 are anchors: the highest scores of the `shallow` block. Their four neighbours on the grid stay
too. The rest are the highest scores of the `deep` block. All come in raster order. If anchors and neighbours are more
than K, the deep scores choose among them too.

Where the published code differs (`variant=code`): a neighbour is the token one place or one row of places before or
behind, so that the left neighbour of a row's first patch is the last patch of the row above, and a neighbour beyond the
grid is its first or last patch. For LLaVA it takes layer 9 of CLIP's 24 (block 8) and the last block whose features
are used; for crops each gets an equal share, which here is each sample's own `keep`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

ABOVE = 2.0  # every score is a share of attention


@dataclass(frozen=True)
class Config:
    """Options of hiprune.

    Attributes:
        alpha: share of the tokens that anchors and their neighbours may take.
        shallow: the block whose attention names the anchors; negative from the end. 8 in CLIP's ViT-L.
        deep: the block whose attention names the rest, not before the shallow one.
        variant: "paper", or "code" for neighbours as the published code takes them.
    """

    alpha: float = 0.1
    shallow: int = 8
    deep: int = -1
    variant: str = "paper"

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "code"):
            raise UsageError(f"option variant={self.variant!r}: accepted are paper and code")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"option alpha={self.alpha}: accepted is a number from 0 to 1")

    def blocks(self, blocks: int) -> tuple[int, int]:
        """The shallow and the deep block.

        Raises:
            UsageError: a model without them.
        """
        shallow, deep = (at if at >= 0 else blocks + at for at in (self.shallow, self.deep))
        if not 0 <= shallow <= deep < blocks:
            raise UsageError(
                f"hiprune reads block {self.shallow} and then block {self.deep}, and the model has blocks "
                f"0-{blocks - 1}: name them with shallow= (a third of the way, as the paper does) and deep="
            )
        return shallow, deep

    def anchors(self, kept: int) -> int:
        """How many anchors there are among the patches that stay."""
        return round(kept * self.alpha / 5)

    def neighbours(self, side: int) -> np.ndarray:
        """(side * side, 5) each patch and its neighbours: left, right, above, below; itself where there is none."""
        patches = np.arange(side * side)
        steps = [patches + step for step in (0, -1, 1, -side, side)]
        if self.variant == "code":
            return np.stack(steps, axis=1).clip(0, side * side - 1)
        row, column = np.divmod(patches, side)
        there = [row >= 0, column > 0, column < side - 1, row > 0, row < side - 1]
        return np.stack([np.where(at, step, patches) for at, step in zip(there, steps, strict=True)], axis=1)


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """(B, N, 1) and then (B, N, 2): the attention that tokens receive in the shallow and in the deep block."""
    op, seen = site.op, memory
    for block in config.blocks(site.blocks):
        if block == site.block:
            assert site.attention is not None
            row = op.Unsqueeze(op.ReduceMean(site.attention.weights, np.array([1, 2]), keepdims=0), np.array([2]))
            seen = row if seen is None else op.Concat(seen, row, axis=2)
    return seen


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    import torch

    seen = memory
    for block in config.blocks(state.blocks):
        if block == state.block:
            row = state.attention.mean(dim=(1, 2))[..., None]
            seen = row if seen is None else torch.cat([seen, row], dim=2)
    return seen


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """The highest deep scores, once anchors and neighbours are raised above all."""
    op, kept = site.op, site.tokens - site.prefix - site.count
    near = config.neighbours(site.side) + site.prefix
    shallow, deep = op.Split(site.memory, num_outputs=2, axis=2, outputs=2)
    shallow, score = (op.Squeeze(value, np.array([2])) for value in (shallow, deep))
    if anchors := config.anchors(kept):
        best = site.ranked(site.part(shallow, site.prefix), anchors)
        cells = op.Reshape(op.Gather(near, best), np.array([0, 5 * anchors]))
        zeros = site.per_sample(np.zeros(site.tokens, np.float32))
        raised = site.per_sample(np.full(5 * anchors, ABOVE, np.float32))
        score = op.Add(score, op.ScatterElements(zeros, cells, raised, axis=1))  # twice the same is once
    return Selection(site.keep_highest(score), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    assert state.memory is not None
    shallow, deep = state.memory.unbind(dim=2)
    anchors = config.anchors(deep.shape[1] - state.prefix - count)
    best = shallow[:, state.prefix :].argsort(dim=1, descending=True, stable=True)[:, :anchors]
    cells = torch.from_numpy(config.neighbours(state.side) + state.prefix)[best].flatten(1)
    return Selection(state.keep_highest(deep + torch.zeros_like(deep).scatter(1, cells, ABOVE), count), None)


TECHNIQUE = Technique(
    summary="keep objects by a middle block's attention, and the gist by the last one's",
    paper="HiPrune, https://arxiv.org/abs/2508.00553, section 3",
    examples=("hiprune:keep=0.5,shallow=1,alpha=0.5", "hiprune:keep=0.25,shallow=0,deep=2,variant=code"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
    needs_grid=True,
)
