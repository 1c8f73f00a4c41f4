"""ficoco: let go what attends to the other patches and is not attended to by the class token; recycle it.

Filter, Correlate, Compress: Training-Free Token Reduction for MLLM Acceleration (FiCoCo-V, AAAI 2026),
https://arxiv.org/abs/2411.17686, section 3; published code: FiCoCo_V.py.

Filter: a patch is worth 0.35 times what the class token attends to it, less 0.65 times what it attends to all patches
on average, both over all patches at length one, of scores before the softmax, averaged over heads. In each window of
2 x 2 patches of the original grid the least worth is worth less still, so that what goes is spread over the picture.
Correlate: each token that goes looks for the one that stays that it attends to most. Compress: that one takes it in,
X_j = (X_j + sum a_ij X_i) / (1 + sum a_ij). The paper's blocks are 12 to 23 of 24, with `r=42`.

What differs: the paper recycles a token into the few that it attends to beyond a quantile, whose number depends on the
picture; a graph of fixed counts has one each, so a_ij = 1. The published code leaves the tokens in the order of their
worth, reads the class token at a place where it no longer is, hands tokens to places of another order, and remembers
windows from one picture to the next; here tokens stay in their places' order, a token that goes or a prefix token takes
nothing in, and nothing is remembered. Without a square grid (text, sound) there are no windows.

The map of all scores is never made: its means over rows are products with the sum of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok.errors import UsageError
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

PADDING = 4.0  # taken off a worth, which is -2 to 1: padding goes first
NOWHERE = 1e9  # a worth where no token is left; taken off the score of padding that stays


@dataclass(frozen=True)
class Config:
    """Options of ficoco.

    Attributes:
        balance: how much the class token's attention counts; what a patch attends to counts 1 - balance.
        windows: whether the least worth of each 2 x 2 patches is worth less still.
    """

    balance: float = 0.35
    windows: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1:
            raise UsageError(f"option balance={self.balance:g}: accepted is a share from 0 to 1")


def window_of(patches: int) -> np.ndarray:
    """(patches, 2): for each patch of the grid its 2 x 2 window, and its place in a layout window by window."""
    side = isqrt(patches)
    y, x = np.divmod(np.arange(patches), side)
    window = y // 2 * -(-side // 2) + x // 2
    return np.stack([window, 4 * window + y % 2 * 2 + x % 2], axis=1)


def has_windows(patches: int, config: Config) -> bool:
    """Whether the patches, as many as there were at first, form a square."""
    return config.windows and isqrt(patches) ** 2 == patches


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Filter by worth, correlate by the scores of those that go."""
    op, kept = site.op, site.tokens - site.count
    query, key = (_joined(site, heads) for heads in (site.query, site.key))
    real = op.Sub(np.float32(1), op.Unsqueeze(site.is_padding, np.array([2]))) if site.padded else None
    worth = _worth(site, query, key, real, config)  # (B, T)
    if has_windows(site.original - site.prefix, config):
        worth = _lowered(site, worth)
    if real is not None:
        worth = op.Sub(worth, op.Mul(site.part(site.is_padding, site.prefix), np.float32(PADDING)))
    order = site.keep_highest(op.Pad(worth, np.array([0, site.prefix, 0, 0])) if site.prefix else worth)
    stay, gone = site.part(order, site.prefix, kept), site.part(order, kept)
    score = op.MatMul(site.gather(query, gone), op.Transpose(site.gather(key, stay), perm=[0, 2, 1]))
    if real is not None:
        barred = op.Mul(op.GatherElements(site.is_padding, stay, axis=1), np.float32(NOWHERE))
        score = op.Sub(score, op.Unsqueeze(barred, np.array([1])))
    row = op.Add(op.ArgMax(score, axis=2, keepdims=0), np.array(site.prefix))
    return Selection(order, row, weight=real if real is not None else site.ones, proportional=False)


def _joined(site: Site, heads: ir.Value | None) -> ir.Value:
    """(B, h, N, d) -> (B, N, h d) fp32: a product of these sums over the heads."""
    import onnx_ir as ir

    rows = site.op.Transpose(site.op.Cast(heads, to=ir.DataType.FLOAT), perm=[0, 2, 1, 3])
    return site.op.Reshape(rows, np.array([0, 0, -1]))


def _worth(site: Site, query: ir.Value, key: ir.Value, real: ir.Value | None, config: Config) -> ir.Value:
    """(B, T)"""
    op = site.op
    queries, keys = (site.part(rows, site.prefix) for rows in (query, key))
    if real is not None:
        queries, keys = (op.Mul(rows, site.part(real, site.prefix)) for rows in (queries, keys))
    seen = op.MatMul(site.part(query, 0, 1), op.Transpose(keys, perm=[0, 2, 1]))  # (B, 1, T) by the class token
    given = op.MatMul(op.ReduceSum(keys, np.array([1])), op.Transpose(queries, perm=[0, 2, 1]))
    parts = (
        op.Mul(site.unit(row, site.tokens - site.prefix), np.float32(by))
        for row, by in ((seen, config.balance), (given, 1 - config.balance))
    )
    return op.Squeeze(op.Sub(*parts), np.array([1]))


def _lowered(site: Site, worth: ir.Value) -> ir.Value:
    """(B, T): the worth, lowered for the least of each window."""
    op, table = site.op, window_of(site.original - site.prefix)
    window: Any = site.per_sample(table[:, 0])
    place: Any = site.per_sample(table[:, 1])
    if site.positions is not None:
        at = op.Sub(site.part(site.positions, site.prefix), np.array(site.prefix))
        window, place = (op.Gather(table[:, column], at, axis=0) for column in (0, 1))
    empty = site.per_sample(np.full(4 * (int(table[:, 0].max()) + 1), NOWHERE, np.float32))
    windows = op.Reshape(op.ScatterElements(empty, place, worth, axis=1), np.array([0, -1, 4]))
    least = op.GatherElements(op.ReduceMin(windows, np.array([2]), keepdims=0), window, axis=1)
    less = op.Min(op.Mul(worth, np.float32(0.5)), op.Mul(worth, np.float32(2)))  # half of what is positive, else twice
    return op.Where(op.LessOrEqual(worth, least), less, worth)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    prefix, batch, tokens = state.prefix, *state.hidden.shape[:2]
    real = (state.size > 0).to(state.hidden.dtype)
    scores = state.scores.mean(dim=1)  # (B, N, N)
    patches = scores[:, prefix:, prefix:] * real[:, prefix:] * real[:, prefix:].mT
    seen, given = scores[:, 0, prefix:] * real[:, prefix:, 0], patches.sum(dim=2)
    unit = [torch.nn.functional.normalize(row, dim=-1) for row in (seen, given)]
    worth = config.balance * unit[0] - (1 - config.balance) * unit[1]
    if has_windows(state.original - prefix, config):
        at = torch.arange(tokens).expand(batch, -1) if state.positions is None else state.positions
        window = torch.from_numpy(window_of(state.original - prefix))[at[:, prefix:] - prefix][..., 0]
        least = torch.full_like(worth, torch.inf).scatter_reduce(1, window, worth, "amin")
        less = torch.where(worth > 0, worth / 2, worth * 2)
        worth = torch.where(worth <= least.gather(1, window), less, worth)
    worth = worth - PADDING * (1 - real[:, prefix:, 0])
    order = state.keep_highest(torch.cat([torch.zeros(batch, prefix, dtype=worth.dtype), worth], dim=1), count)
    stay, gone = order[:, prefix : tokens - count], order[:, tokens - count :]
    barred = scores.masked_fill(real.mT == 0, -torch.inf)
    rows = barred.gather(1, gone[..., None].expand(-1, -1, tokens)).gather(2, stay[:, None].expand(-1, count, -1))
    return Selection(order, rows.argmax(dim=2) + prefix, weight=real, proportional=False)


TECHNIQUE = Technique(
    summary="let go what the class token overlooks and what attends to all others; merge it where it attends to most",
    paper="Filter, Correlate, Compress (FiCoCo-V), https://arxiv.org/abs/2411.17686, section 3",
    examples=("ficoco:r=4", "ficoco:ratio=0.7,layers=1-3"),
    config=Config,
    select=select,
    reference=reference,
    kind="prune and merge",
    needs_class_token=True,
    at_most=1.0,
)
