"""The nearest of a few numbers in order, channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _ids

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


def nearest(op: Emitter, x: ir.Value, values: np.ndarray) -> ir.Value:
    """x (B, N, D), values (2^n,) fp32, ascending -> (B, N, D) int64, the lower of two that are equally near.

    A value is nearer than the one before it beyond the middle of both. n comparisons find it, one bit each, where
    comparing with all values would take a tensor (B, N, D, 2^n).
    """
    middles = (values[1:].astype(np.float64) + values[:-1]) / 2
    rounded = middles.astype(np.float32)
    middles = np.where(rounded > middles, np.nextafter(rounded, np.float32(-np.inf)), rounded)  # down: x > both or none
    step = len(values) // 2
    index = op.Where(op.Greater(x, middles[step - 1]), np.int64(step), np.int64(0))
    while step := step // 2:
        middle = op.Gather(middles, op.Add(index, np.int64(step - 1)), axis=0)
        index = op.Add(index, op.Where(op.Greater(x, middle), np.int64(step), np.int64(0)))
    return index


def chosen(op: Emitter, ids: ir.Value, values: np.ndarray) -> ir.Value:
    """ids (B, N, D) -> (B, N, D), the values of their numbers; those outside count as the first or the last."""
    return op.Gather(values, _ids.within(op, ids, len(values)), axis=0)


def reference(x: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """The same by all distances, in the type of x."""
    import torch

    return (x[..., None] - torch.from_numpy(values).to(x.dtype)).abs().argmin(dim=-1)


def reference_chosen(ids: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    """`chosen` in PyTorch, of ids that are within their size."""
    import torch

    return torch.from_numpy(values)[ids]
