"""globalcom2: behind the encoder the thumbnail says how much of each crop stays, and helps to choose it.

Global Compression Commander: Plug-and-Play Inference Acceleration for High-Resolution Large Vision-Language Models
(AAAI 2026), https://arxiv.org/abs/2501.05179, section 3; published code: generate_scale_for_crop_features,
compress_thumbnail, compress_crops.

The batch is a picture's thumbnail and then its crops, row by row (`grid=2x2`). A patch's score is the class token's
attention to it before the softmax, averaged over heads. With R the share of the tokens that stays, the thumbnail keeps
its best share R. A crop keeps a share R (1 + p - mean p), at most all, where p is the softmax over the crops of the
thumbnail's scores summed under each, divided by `temperature`. Its tokens are ranked by their own scores plus the
thumbnail's, stretched over the crops (bilinear); both at length one per crop. Counts are rounded down, so a few tokens
are over: they go to the best that are left, in any crop, so that always K stay. Without `grid` every sample is a
thumbnail.

What differs: the published code leaves the thumbnail's tokens in the order of their scores, here all are in raster
order, picture by picture; it drops the patches of a crop that are padding (which the encoder does not know: give crops
without any), and puts a newline token behind each row, which is the language model's business. Its scores are the last
block's, though the features are those of the block before: a source cut there has no such block, and the last one
that is left is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.exporters._crops import join, join_reference, parse_grid, pictures, under
from edgetok.technique import Observe, Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

BARRED = -1e4  # the score of padding


@dataclass(frozen=True)
class Config:
    """Options of globalcom2.

    Attributes:
        grid: rows and columns of crops behind the thumbnail, "2x2"; without it every sample is a picture of its own.
        temperature: of the softmax over the crops; the higher, the more alike are their shares.
        block: whose class token is asked; negative from the end.
    """

    grid: str = ""
    temperature: float = 10.0
    block: int = -1

    def __post_init__(self) -> None:
        parse_grid(self.grid)
        if not self.temperature > 0:
            raise UsageError(f"option temperature={self.temperature}: accepted is a number above 0")

    def reads(self, block: int, blocks: int) -> bool:
        """Whether a block's class token is asked.

        Raises:
            UsageError: a model without that block.
        """
        wanted = self.block if self.block >= 0 else blocks + self.block
        if not 0 <= wanted < blocks:
            known = f"the model has blocks 0-{blocks - 1}"
            raise UsageError(f"globalcom2 reads block {self.block}, and {known}: name one of them with block=")
        return block == wanted


def observe(site: Site, memory: ir.Value | None, config: Config) -> ir.Value | None:
    """(B, N, 1) the class token's attention before the softmax."""
    if not config.reads(site.block, site.blocks):
        return memory
    assert site.attention is not None
    op = site.op
    row = op.ReduceMean(site.attention.class_scores, np.array([1, 2]), keepdims=0)
    if site.padded:
        row = op.Where(op.Cast(site.is_padding, to=ir.DataType.BOOL), np.float32(BARRED), row)
    return op.Unsqueeze(row, np.array([2]))


def observed(state: State, memory: torch.Tensor | None, config: Config) -> torch.Tensor | None:
    """The same in PyTorch."""
    if not config.reads(state.block, state.blocks):
        return memory
    row = state.scores[:, :, 0].mean(dim=1)[..., None]
    return row.masked_fill(state.size == 0, BARRED)


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """A share per crop, and the highest of both scores within it."""
    op = site.op
    score = op.Squeeze(site.memory, np.array([2]))
    if not config.grid:
        return Selection(site.keep_highest(score), None)
    (rows, columns), side, crops = parse_grid(config.grid), site.side, site.crops - 1
    patches, kept = side * side, site.tokens - site.count
    share = kept / site.tokens
    thumbnail = site.part(score, 0, patches)
    content = op.Mul(op.MatMul(thumbnail, under(side, config.grid)), np.float32(1 / config.temperature))  # (1, crops)
    scales = op.Mul(op.Add(op.Softmax(content, axis=1), np.float32(1 - 1 / crops)), np.float32(share))
    budgets = op.Reshape(op.Floor(op.Mul(op.Min(scales, np.float32(1)), np.float32(patches))), np.array([crops, 1]))
    picture = op.Reshape(thumbnail, np.array([1, 1, side, side]))
    stretched = op.Resize(picture, None, np.array([1, 1, rows, columns], np.float32), mode="linear")
    stretched = op.Transpose(op.Reshape(stretched, np.array([rows, side, columns, side])), perm=[0, 2, 1, 3])
    own, context = (
        site.unit(op.Reshape(value, np.array([crops, patches])), patches)
        for value in (site.part(score, patches), stretched)
    )
    return Selection(join(site, thumbnail, int(patches * share), op.Add(own, context), budgets), None)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    from torch.nn.functional import interpolate, normalize

    assert state.memory is not None
    if not config.grid:
        return Selection(state.keep_highest(state.memory[..., 0], count), None)
    (rows, columns), side = parse_grid(config.grid), state.side
    score = state.memory[0, :, 0].reshape(state.crops, -1)
    kept, patches = score.numel() - count, score.shape[1]
    share = kept / score.numel()
    budgets = (patches * scales(score[0], share, side, config)).floor()[:, None]
    picture = score[0].reshape(1, 1, side, side)
    stretched = interpolate(picture, scale_factor=(rows, columns), mode="bilinear", align_corners=False)
    stretched = stretched.reshape(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, patches)
    ranks = normalize(score[1:], dim=1) + normalize(stretched, dim=1)
    return Selection(join_reference(score[:1], int(patches * share), ranks, budgets, kept), None)


def scales(thumbnail: torch.Tensor, share: float, side: int, config: Config) -> torch.Tensor:
    """(N,) -> (crops,) the share of each crop that stays, by the thumbnail's scores."""
    import torch

    content = thumbnail @ torch.from_numpy(under(side, config.grid)).to(thumbnail.dtype)
    likely = (content / config.temperature).softmax(dim=0)
    return (share * (1 + likely - likely.mean())).clamp(max=1)


TECHNIQUE = Technique(
    summary="the thumbnail says how much of each crop stays, and helps to choose it",
    paper="Global Compression Commander, https://arxiv.org/abs/2501.05179, section 3",
    examples=("globalcom2:keep=0.25", "globalcom2:keep=0.25,grid=2x2"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune",
    observe=Observe(observe, observed),
    needs_class_token=True,
    across=lambda config: pictures(config.grid),
)
