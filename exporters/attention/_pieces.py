"""Choosing piece by piece: the scores of all queries are never held at once, so memory grows with the lists.

A choice that fits is one piece, and its graph is what it is without pieces. In a causal model a piece is compared with
the keys up to its own last query only, which saves half of the products, and the mask of its own keys is the same for
all pieces: it is one constant of the graph, where one of all pairs would be a gigabyte at 16384 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from edgetok.graph import Emitter
    from edgetok.view.sparse import AttentionSite

AT_ONCE = 2**20  # scores of a sample's piece: 4 MB, of which a choice holds a few copies
MOST = 256  # pieces: a graph of at most some 2500 nodes for each block of the model


def length(site: AttentionSite, rows: int, columns: int, unit: int = 1) -> int:
    """How many rows of scores, each of so many columns in each head, are a piece: all, or a multiple of `unit`."""
    fit = max(AT_ONCE // (site.heads * columns), -(-rows // MOST))
    return rows if fit >= rows else max(1, fit // unit) * unit


def rows(op: Emitter, value: ir.Value, first: int, last: int, count: int) -> ir.Value:
    """(B, h, count, d) -> (B, h, last - first, d)."""
    if (first, last) == (0, count):
        return value
    out: ir.Value = op.Slice(value, np.array([first]), np.array([last]), np.array([2]))
    return out


def joined(op: Emitter, pieces: list[ir.Value]) -> ir.Value:
    """(B, h, rows, ...) of all pieces."""
    out: ir.Value = pieces[0] if len(pieces) == 1 else op.Concat(*pieces, axis=2)
    return out


def causal(
    op: Emitter, scores: Callable[[int, int], ir.Value], start: int, shape: tuple[int, int], always: ir.Value
) -> ir.Value:
    """(B, h, R, start + own): what rows score in front of their piece, and within it with what is always added.

    Args:
        scores: (low, high) -> (B, h, R, high - low) of the columns from low to high.
        start: the columns in front of the piece.
        shape: (R, own) of the piece within itself.
        always: (R, own) fp32, or larger: what is added there, the bar against what lies ahead above all.
    """
    if always.shape is not None and tuple(always.shape) != shape:
        always = op.Slice(always, np.array([0, 0]), np.array(shape), np.array([0, 1]))
    own: ir.Value = op.Add(scores(start, start + shape[1]), always)
    return own if not start else op.Concat(scores(0, start), own, axis=3)


def best(op: Emitter, scores: ir.Value, columns: int, most: int) -> ir.Value:
    """(B, h, R, columns) -> (B, h, R, most) int32: the columns with the largest scores; -1 behind where all fit."""
    _, index = op.TopK(scores, np.array([min(most, columns)]), axis=3, outputs=2)
    index = op.Cast(index, to=ir.DataType.INT32)
    if columns >= most:
        return index
    filled: ir.Value = op.Pad(index, np.array([0, 0, 0, 0, 0, 0, 0, most - columns]), np.array(-1, np.int32))
    return filled
