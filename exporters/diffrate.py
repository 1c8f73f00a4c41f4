"""diffrate: drop what the class token attends to least, merge what it attends to little.

DiffRate: Differentiable Compression Rate for Efficient Vision Transformers (ICCV 2023),
https://arxiv.org/abs/2305.17997, section 3.2; published code: merge.py, patch/deit.py.

Tokens are ordered by the mean over heads of what the class token attends to. Of the r tokens that go, the last ones are
dropped; each of the others is averaged into the most similar of those that stay, by the cosine of the tokens themselves
behind attention. The mean counts every token once, and a merged token adds its size times the cosine to the size of its
destination, by which attention counts it from there on. The order behind it is that of the attention, prefix first.

How many go is learnt once per model: `r` and `prune` take the published schedules. P and Q tokens are left behind
pruning and merging in each block of compression_rate.json; r = Q before - Q and prune = Q before - P. DeiT-S at 2.9 G:
`diffrate:r=0/3/18/20/15/8/12/14/19/24/8/53,prune=0/1/4/8/6/2/4/4/8/10/6/53`. Where a list there rises, nothing goes.

What differs: the mean follows the published code, by which the numbers were made; whether the paper's text weights it
by size, as ToMe does, could not be verified. A negative cosine adds nothing to a size (in the code sizes can fall below
zero, and log(size) is no number). Padding, which the code does not know, goes first and has no weight; a distillation
token and registers stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

BARRED = 4.0  # above every cosine and every attention weight


@dataclass(frozen=True)
class Config:
    """Options of diffrate.

    Attributes:
        prune: how many of the tokens that go are dropped and not merged: one number per block of the model, "1/5/8",
            or their share, which is 0.4 in the published schedules for DeiT-S.
    """

    prune: str = "0.4"

    def __post_init__(self) -> None:
        if not self._is_list() and not self._share_is_valid():
            raise UsageError(
                f"option prune={self.prune!r}: accepted is a share from 0 to 1 such as 0.4, or one count per block of "
                "the model such as 0/1/5/8"
            )

    def dropped(self, count: int, block: int, blocks: int) -> int:
        """How many of the `count` tokens that go from a block are dropped.

        Raises:
            UsageError: the list has not one number per block of the model, or more than go.
        """
        if not self._is_list():
            return int(count * float(self.prune))
        counts = [int(part) for part in self.prune.split("/")]
        if len(counts) != blocks:
            raise UsageError(
                f"prune={self.prune} has {len(counts)} numbers, and the model {blocks} blocks; give one for each, 0 "
                "where nothing goes, or a share such as 0.4"
            )
        if counts[block] > count:
            raise UsageError(
                f"prune={self.prune}: {counts[block]} tokens cannot be dropped from block {block}, where {count} go; "
                "r counts those dropped and those merged"
            )
        return counts[block]

    def _is_list(self) -> bool:
        return "/" in self.prune and all(part.isdecimal() for part in self.prune.split("/"))

    def _share_is_valid(self) -> bool:
        try:
            return 0 <= float(self.prune) <= 1
        except ValueError:
            return False


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Rank by the class token's attention; drop the last, merge those in front of them."""
    op, prefix, count = site.op, site.prefix, site.count
    kept, dropped = site.tokens - count, config.dropped(count, site.block, site.blocks)
    assert site.attention is not None
    score = site.attention.class_row  # (B, N)
    if site.padded:
        score = op.Sub(score, op.Mul(site.is_padding, np.float32(BARRED)))
    places = op.Add(site.ranked(site.part(score, prefix), site.tokens - prefix), np.array(prefix))
    order = op.Concat(site.per_sample(np.arange(prefix)), places, axis=1)
    stay, gone = site.part(order, prefix, kept), site.part(order, kept)
    rows = [site.gather(site.unit_hidden, index) for index in (gone, stay)]
    cosine = op.MatMul(rows[0], op.Transpose(rows[1], perm=[0, 2, 1]))  # (B, count, kept - prefix)
    if site.padded:
        barred = op.Mul(op.GatherElements(site.is_padding, stay, axis=1), np.float32(BARRED))
        cosine = op.Sub(cosine, op.Unsqueeze(barred, np.array([1])))
    destination = op.Add(op.ArgMax(cosine, axis=2, keepdims=0), np.array(prefix))
    if dropped == count:
        return Selection(order, destination, dropped=count)
    handed = op.Relu(op.ReduceMax(cosine, np.array([2])))  # (B, count, 1)
    share = op.ScatterElements(site.ones, op.Unsqueeze(gone, np.array([2])), handed, axis=1)
    weight = site.ones
    if site.padded:
        weight = op.Sub(weight, op.Unsqueeze(site.is_padding, np.array([2])))
    return Selection(order, destination, dropped=dropped, weight=weight, share=share)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    batch, tokens, width = state.hidden.shape
    prefix, kept, dropped = state.prefix, tokens - count, config.dropped(count, state.block, state.blocks)
    padding = (state.size[..., 0] == 0).to(state.hidden.dtype)  # (B, N)
    score = state.class_row - BARRED * padding
    places = score[:, prefix:].argsort(dim=1, descending=True, stable=True) + prefix
    order = torch.cat([torch.arange(prefix).expand(batch, -1), places], dim=1)
    unit = torch.nn.functional.normalize(state.hidden, dim=-1)
    stay, gone = order[:, prefix:kept], order[:, kept:]
    rows = [unit.gather(1, index[..., None].expand(-1, -1, width)) for index in (gone, stay)]
    cosine = rows[0] @ rows[1].mT - BARRED * padding.gather(1, stay)[:, None]
    handed, destination = cosine.max(dim=2)
    if dropped == count:
        return Selection(order, destination + prefix, dropped=count)
    share = torch.ones_like(padding).scatter(1, gone, handed.clamp_min(0))
    return Selection(
        order, destination + prefix, dropped=dropped, weight=1 - padding[..., None], share=share[..., None]
    )


TECHNIQUE = Technique(
    summary="drop what the class token attends to least, merge what it attends to little",
    paper="DiffRate, https://arxiv.org/abs/2305.17997, section 3.2",
    examples=("diffrate:r=4,prune=0.5", "diffrate:ratio=0.6,layers=1/3,prune=0"),
    config=Config,
    select=select,
    reference=reference,
    kind="prune and merge",
    needs_class_token=True,
    at_most=1.0,
)
