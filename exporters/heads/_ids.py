"""Ids in graphs: kept within their codebooks, joined, and packed from signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter

BITS = 53  # of an id at most: onnxruntime 1.32.0 sums int64 in fp64 (1.23.2 does not)


def within(op: Emitter, ids: ir.Value, sizes: int | Sequence[int] | np.ndarray, lowest: int = 0) -> ir.Value:
    """Ids, each at least `lowest` and below its size.

    By comparisons: in onnxruntime 1.23.2 Max, Min and Clip of int64 take the lower 32 bits as signed where the upper
    ones are equal (measured with AVX-512): the larger of 2^31 and 0 is 0 to them.
    """
    highest = np.asarray(sizes, np.int64) - 1
    ids = op.Where(op.Less(ids, np.int64(lowest)), np.int64(lowest), ids)
    return op.Where(op.Greater(ids, highest), highest, ids)


def joined(op: Emitter, ids: Sequence[ir.Value]) -> ir.Value:
    """L times (B, N) -> (B, N, L); (B, N) for one."""
    last = np.array([2])
    return ids[0] if len(ids) == 1 else op.Concat(*(op.Unsqueeze(each, last) for each in ids), axis=2)


def place_values(bits: int, highest_first: bool) -> np.ndarray:
    """(bits,) int64: what a one at each place is worth."""
    values = np.int64(1) << np.arange(bits)
    return values[::-1].copy() if highest_first else values


def from_signs(op: Emitter, x: ir.Value, groups: int, values: np.ndarray) -> ir.Value:
    """x (B, N, groups * bits) -> (B, N, groups), or (B, N) for one group, int64: what is above 0 is a one."""
    ones = op.Greater(x, np.float32(0))
    worth = op.Where(ones, np.tile(values, groups), np.int64(0))  # in fp32 it would be right up to 24 bits only
    if groups > 1:
        worth = op.Reshape(worth, np.array([0, 0, groups, len(values)]))
    return op.ReduceSum(worth, np.array([3 if groups > 1 else 2]), keepdims=0)


def to_signs(op: Emitter, ids: ir.Value, groups: int, values: np.ndarray, scale: float = 1.0) -> ir.Value:
    """The inverse: (B, N, groups * bits) fp32, `scale` for a one and -scale for a zero."""
    ids = within(op, ids, 2 ** len(values))
    bits = op.Mod(op.Div(op.Unsqueeze(ids, np.array([-1])), values), np.int64(2))
    if groups > 1:
        bits = op.Reshape(bits, np.array([0, 0, groups * len(values)]))
    return op.Where(op.Equal(bits, np.int64(1)), np.float32(scale), np.float32(-scale))


def reference_from_signs(x: torch.Tensor, groups: int, values: np.ndarray) -> torch.Tensor:
    """`from_signs` in PyTorch."""
    import torch

    ids = ((x > 0).reshape(*x.shape[:-1], groups, len(values)) * torch.from_numpy(values)).sum(dim=-1)
    return ids if groups > 1 else ids[..., 0]


def reference_to_signs(ids: torch.Tensor, groups: int, values: np.ndarray, scale: float = 1.0) -> torch.Tensor:
    """`to_signs` in PyTorch, by shifts, of ids that are within their size."""
    import torch

    bits = (ids[..., None] & torch.from_numpy(values)) != 0
    return ((bits.flatten(-2) if groups > 1 else bits) * 2.0 - 1) * scale
