"""flashvid: behind the encoder keep what is salient in each frame of a video, and merge the rest along time.

FlashVID: Efficient Video Large Language Models via Training-free Tree-based Spatiotemporal Token Merging (ICLR 2026),
https://arxiv.org/abs/2602.08024, section 3; published code: flashvid_compression.

The batch is the frames of one video, in their order (`frames=8` with --batch 8), and K tokens stay in all:

1. In each frame, `selected` of its share of K are chosen far from each other (FarthestPoints), their distances weighted
   by what the class token attends to in the last block, and by how much a token resembles the video (its product with
   the mean of all tokens). These stay as they are.
2. Each other token is linked to the most similar such token of the frame before if their cosine is above `threshold`,
   unless the means of the two frames are less alike than `cut`: another scene. Links make trees along time. If fewer
   trees are left than tokens may stay, the weakest links break.
3. The trees of the most tokens stay, among equals those whose root the class token attends to most; a tree becomes the
   mean of its tokens and stands in its root's place. Every other tree is averaged into the one whose root is nearest.

With `frames=1` every sample is a picture of its own; there are no links, and the third step chooses by attention.

What differs, so that the count of tokens never depends on the video: the third step is the paper's clustering of roots
(DPC-kNN, centres by density, made frame by frame, with noise) with other centres, and it weighs tokens and not trees. A
video is not cut into a least number of scenes. There is no surplus of tokens for the language model to prune. The
published code divides a tree's sum by its root and the root's children only, breaks one link too many, lets a token
that is unlike the video be chosen twice (here it comes last), and gives out what it chose in a lone frame twice.

One core, 8 frames of 256 tokens of 384 channels, a quarter kept: 42 ms; ViT-S takes 40 ms for each frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok.errors import UsageError
from edgetok.exporters._last_class_row import LAST_CLASS_ROW
from edgetok.exporters._trees import BARRED, EPSILON, grow, grown
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config:
    """Options of flashvid.

    Attributes:
        frames: of the video that the batch holds; with 1 every sample is a picture of its own.
        selected: the share of the tokens that is chosen in each frame; the others are trees along time.
        threshold: the cosine above which a token is linked to one of the frame before.
        cut: two frames whose means have a smaller cosine belong to different scenes.
    """

    frames: int = 1
    selected: float = 0.7
    threshold: float = 0.8
    cut: float = 0.9

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UsageError(f"option frames={self.frames}: accepted is a number from 1 up")
        if not 0 < self.selected <= 1:
            raise UsageError(f"option selected={self.selected}: accepted is a number above 0, up to 1")

    def split(self, kept: int) -> tuple[int, int]:
        """Of the tokens that stay, how many are chosen in each frame, and how many trees there are."""
        chosen = ceil(round(self.selected * kept / self.frames, 6))
        return chosen, kept - chosen * self.frames


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Choose in each frame, link along time, keep the largest trees."""
    op, first, frames = site.op, site.prefix, site.crops
    patches = site.tokens - first
    kept = patches - site.count
    chosen, trees = config.split(kept)
    assert site.memory is not None
    attention = op.Squeeze(site.part(site.memory, first), np.array([2]))  # (B, patches)
    unit = site.part(site.unit_hidden, first)
    marked = _choose(site, unit, attention, patches // frames, chosen)  # (B, patches) 1 where chosen, else 0
    root: ir.Value | None = None
    score: ir.Value = op.Add(attention, np.float32(1))
    if frames > 1 and trees:
        root, size = grow(site, unit, marked, config.threshold, config.cut)
        score = op.Where(op.Equal(root, np.arange(patches)[None]), op.Add(attention, size), np.float32(0))
    score = op.Add(score, op.Mul(marked, np.float32(2 * patches)))
    if site.padded:
        score = op.Sub(score, op.Mul(site.part(site.is_padding, first), np.float32(BARRED)))
    ranked = site.ranked(score, patches)
    stay, gone = site.in_order(site.part(ranked, 0, kept), kept), site.part(ranked, kept)
    order = op.Concat(site.per_sample(np.arange(first)), op.Add(op.Concat(stay, gone, axis=1), np.array(first)), axis=1)
    if not trees:
        return Selection(order, None)
    centres = site.part(ranked, kept - trees, kept)
    from_root = gone if root is None else op.GatherElements(root, gone, axis=1)
    cosine = op.MatMul(site.gather(unit, from_root), op.Transpose(site.gather(unit, centres), perm=[0, 2, 1]))
    own = op.Equal(op.Unsqueeze(from_root, np.array([2])), op.Unsqueeze(centres, np.array([1])))
    nearest = op.ArgMax(op.Where(own, np.float32(BARRED), cosine), axis=2, keepdims=0)  # (B, gone)
    blank, new = (site.per_sample(row) for row in (np.zeros(patches, np.int64), np.arange(kept)))
    rows = op.ScatterElements(blank, stay, new, axis=1)
    into = op.GatherElements(rows, op.GatherElements(centres, nearest, axis=1), axis=1)
    return Selection(order, op.Add(into, np.array(first)))


def _choose(site: Site, unit: ir.Value, attention: ir.Value, patches: int, count: int) -> ir.Value:
    """(B, frames * patches): 1 for the `count` tokens of each frame that are far from each other and salient."""
    op = site.op
    hidden = site.part(op.Cast(site.hidden, to=ir.DataType.FLOAT), site.prefix)
    real, bias = hidden, np.zeros((1, 1), np.float32)
    if site.padded:
        padding = site.part(site.is_padding, site.prefix)
        real = op.Mul(hidden, op.Unsqueeze(op.Sub(np.float32(1), padding), np.array([2])))
        bias = op.Mul(padding, np.float32(-BARRED))
    mean = op.ReduceMean(real, np.array([1]), keepdims=1)
    relevance = op.Squeeze(op.MatMul(hidden, op.Transpose(mean, perm=[0, 2, 1])), np.array([2]))
    weight = op.Reshape(op.Mul(attention, op.Relu(relevance)), np.array([-1, patches]))
    weight = op.Div(weight, op.Max(op.ReduceMax(weight, np.array([1])), np.float32(EPSILON)))
    points = op.Reshape(unit, np.array([0 if site.crops == 1 else site.crops, patches, -1]))
    index = op.FarthestPoints(points, weight, bias, domain="edgetok", count=count)
    none = op.Expand(np.zeros((1, patches), np.float32), op.Shape(weight))
    marked = op.ScatterElements(none, index, op.Expand(np.float32(1), op.Shape(index)), axis=1)
    return op.Reshape(marked, np.array([-1, site.crops * patches]))


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.farthest_points import reference as farthest

    assert state.memory is not None
    first, hidden, attention = state.prefix, state.hidden[:, state.prefix :], state.memory[:, state.prefix :, 0]
    batch, patches, width = hidden.shape
    kept = patches - count
    chosen, trees = config.split(kept)
    unit = torch.nn.functional.normalize(hidden, dim=-1)
    padding = (state.size[:, first:] == 0).to(hidden.dtype)
    relevance = (hidden * (hidden * (1 - padding)).mean(dim=1, keepdim=True)).sum(dim=2)
    weight = (attention * relevance.relu()).reshape(batch * state.crops, -1)
    weight = weight / weight.amax(dim=1, keepdim=True).clamp_min(EPSILON)
    bias = -BARRED * padding.reshape(weight.shape)
    index = farthest(unit.reshape(*weight.shape, width), weight, bias, chosen)
    marked = torch.zeros_like(weight).scatter_(1, index, 1)

    places = torch.arange(patches).expand(batch, -1)
    root, size = places, torch.ones(patches)
    if state.crops > 1 and trees:
        root, size = grown(hidden.reshape(state.crops, -1, width), marked > 0, count, config.threshold, config.cut)
    score = torch.where(root == places, attention + size, 0) + 2 * patches * marked.reshape(batch, -1)
    ranked = (score - BARRED * padding[..., 0]).argsort(dim=1, descending=True, stable=True)
    stay, gone = ranked[:, :kept].sort(dim=1).values, ranked[:, kept:]
    order = torch.cat([torch.arange(first).expand(batch, -1), stay + first, gone + first], dim=1)
    if not trees:
        return Selection(order, None)
    centres, from_root = ranked[:, kept - trees : kept], root.gather(1, gone)
    samples = torch.arange(batch)[:, None]
    cosine = unit[samples, from_root] @ unit[samples, centres].mT
    nearest = cosine.masked_fill(from_root[..., None] == centres[:, None], BARRED).argmax(dim=2)
    rows = torch.zeros_like(places).scatter(1, stay, places[:, :kept])
    return Selection(order, rows.gather(1, centres.gather(1, nearest)) + first)


TECHNIQUE = Technique(
    summary="keep what is salient in each frame of a video, and merge the rest along time",
    paper="FlashVID, https://arxiv.org/abs/2602.08024, section 3",
    examples=("flashvid:keep=0.25", "flashvid:keep=0.4,frames=4"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="prune and merge",
    observe=LAST_CLASS_ROW,
    needs_class_token=True,
    across=lambda config: config.frames,
)
