"""The nearest row of a codebook, and the rows of ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _ids
from edgetok.rewrite.nearest_code import pays

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


def nearest(op: Emitter, x: ir.Value, codebook: np.ndarray, bias: np.ndarray) -> ir.Value:
    """x (B, N, D), codebook (K, D), bias (K,) -> (B, N) int64: the row of the largest product plus bias."""
    codebook, bias = np.asarray(codebook, np.float32), np.asarray(bias, np.float32)
    if pays(*codebook.shape):
        return op.NearestCode(x, codebook, bias, domain="edgetok")
    return op.ArgMax(op.Add(op.MatMul(x, codebook.T), bias), axis=2, keepdims=0)


def euclidean(codebook: np.ndarray) -> np.ndarray:
    """The bias that makes the largest product the smallest distance: |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2)."""
    return np.square(codebook, dtype=np.float64).sum(axis=-1) / -2


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length one; a row of zeros stays."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def rows(op: Emitter, ids: ir.Value, tables: np.ndarray, lowest: int = 0) -> ir.Value:
    """ids (B, N) and a table (K, d) -> (B, N, d); ids (B, N, L) and tables (L, K, d) -> (B, N, L, d).

    The first row of a table belongs to the id `lowest`. Ids outside a table count as its first or last row.
    """
    levels, codes, width = tables.shape if tables.ndim == 3 else (1, *tables.shape)
    first = np.arange(levels) * codes - lowest  # of each table, in all of them joined
    ids = _ids.within(op, ids, codes + lowest, lowest)
    if first.any():
        ids = op.Add(ids, first)
    return op.Gather(tables.reshape(-1, width).astype(np.float32), ids, axis=0)


def reference(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """x (..., D), codebook (K, D) -> (...) int64: the row at the smallest distance, of equal ones the first."""
    import torch

    return torch.cdist(x, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
