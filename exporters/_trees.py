"""Trees of tokens along time: each token hangs on the one of the frame before that it resembles most.

A token that is linked goes into its tree's root, so no more may be linked than go: the weakest links break.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import torch

    from edgetok.view.site import Site

BARRED = 4.0  # more than two cosines differ by
EPSILON = 1e-12


def grow(site: Site, unit: ir.Value, chosen: ir.Value, threshold: float, cut: float) -> tuple[ir.Value, ir.Value]:
    """The graph form.

    Args:
        site: the tokens of all frames, `count` of which go.
        unit: (1, M, C) fp32: the tokens at length one.
        chosen: (1, M) fp32: 1 for those that are in no tree, else 0.
        threshold: the cosine above which a token is linked.
        cut: the cosine of two frames' means below which nothing is.

    Returns:
        root: (1, M) int64 of each token's tree.
        size: (1, M) fp32, of how many tokens a tree with that root is.
    """
    op, frames = site.op, site.crops
    patches = site.tokens // frames
    rows = op.Reshape(unit, np.array([1, frames, patches, -1]))
    barred = op.Reshape(op.Mul(chosen, np.float32(BARRED)), np.array([1, frames, patches]))
    hidden = op.Reshape(op.Cast(site.hidden, to=ir.DataType.FLOAT), np.array([1, frames, patches, -1]))
    means = op.ReduceMean(hidden, np.array([2]), keepdims=0)  # (1, frames, C)
    length = op.Max(op.ReduceL2(means, np.array([2])), np.float32(EPSILON))
    means = op.Div(means, length)
    alike = op.ReduceSum(op.Mul(site.part(means, 0, -1), site.part(means, 1)), np.array([2]))  # (1, frames - 1, 1)
    cosine = op.MatMul(site.part(rows, 1), op.Transpose(site.part(rows, 0, -1), perm=[0, 1, 3, 2]))
    cosine = op.Sub(cosine, op.Unsqueeze(site.part(barred, 0, -1), np.array([2])))  # (1, frames - 1, patches, patches)
    best = op.Sub(op.ReduceMax(cosine, np.array([3]), keepdims=0), site.part(barred, 1))
    best = op.Where(op.Less(alike, np.float32(cut)), np.float32(-BARRED), best)
    parent = op.ArgMax(cosine, axis=3, keepdims=0)  # (1, frames - 1, patches)
    limit: object = np.float32(threshold)
    if site.count < (frames - 1) * patches:  # a token that is linked goes: no more may be
        links = op.Reshape(best, np.array([1, -1]))
        strongest = op.TopK(links, np.array([site.count + 1]), axis=1, outputs=2)[0]
        limit = op.Max(op.Unsqueeze(site.part(strongest, site.count), np.array([2])), limit)
    linked = op.Greater(best, limit)

    places = np.arange(frames * patches).reshape(1, frames, patches)
    up = op.Where(linked, op.Add(parent, places[:, :-1, :1]), places[:, 1:])
    root = op.Reshape(op.Concat(places[:, :1], up, axis=1), np.array([1, -1]))
    for _ in range((frames - 2).bit_length()):  # twice as many frames back each time
        root = op.GatherElements(root, root, axis=1)

    hit = op.And(op.Equal(op.Unsqueeze(parent, np.array([3])), places[0, 0]), op.Unsqueeze(linked, np.array([3])))
    hit = op.Cast(hit, to=ir.DataType.FLOAT)  # (1, frames - 1, patches, patches)
    sizes: list[object] = [np.ones((1, 1, patches), np.float32)]
    for frame in reversed(range(frames - 1)):
        to_frame = op.Squeeze(site.part(hit, frame, frame + 1), np.array([1]))
        sizes.insert(0, op.Add(op.MatMul(sizes[0], to_frame), np.float32(1)))
    return root, op.Reshape(op.Concat(*sizes, axis=1), np.array([1, -1]))


def grown(
    hidden: torch.Tensor, chosen: torch.Tensor, count: int, threshold: float, cut: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in PyTorch.

    Args:
        hidden: (frames, patches, C) the tokens.
        chosen: (frames, patches) which of them are in no tree.
        count: how many tokens go.
        threshold: the cosine above which a token is linked.
        cut: the cosine of two frames' means below which nothing is.

    Returns:
        root: (1, frames * patches) of each token's tree.
        size: (frames * patches,) of how many tokens a tree with that root is.
    """
    import torch

    unit, means = (torch.nn.functional.normalize(x, dim=-1) for x in (hidden, hidden.mean(dim=1)))
    best, parent = torch.full(chosen.shape, -BARRED, dtype=unit.dtype), torch.zeros_like(chosen, dtype=torch.int64)
    for frame in range(1, len(unit)):
        cosine = (unit[frame] @ unit[frame - 1].mT).masked_fill(chosen[frame - 1], -BARRED)
        best[frame], parent[frame] = cosine.max(dim=1)
        if means[frame] @ means[frame - 1] < cut:
            best[frame] = -BARRED
    best = best.masked_fill(chosen, -BARRED)
    limit = max(threshold, float(best.flatten().sort(descending=True).values[count]))
    root = torch.arange(chosen.numel()).reshape(chosen.shape)
    for frame in range(1, len(unit)):
        root[frame] = torch.where(best[frame] > limit, root[frame - 1][parent[frame]], root[frame])
    return root.reshape(1, -1), root.flatten().bincount(minlength=root.numel())
