"""What depends on where a token stood in the original row: tables of positions, and the reach of local attention.

A token that stays keeps its position, and one that others are merged into keeps its own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.view.flow import Flow, Table
from edgetok.view.masks import BARRED
from edgetok.view.outputs import behind, take
from edgetok.view.stage import Stage


def place_tables(graph: ir.Graph, flow: Flow, number: int, stage: Stage) -> None:
    """Let what is read in a stage of the flow have the rows of the tokens that are there."""
    if stage.positions is None:
        return
    for table in flow.tables:
        if table.stage == number:
            key = table.value, table.rank, table.axis, table.cut
            if key not in stage.companions:
                stage.companions[key] = _rows(g.Emitter(graph), table, stage)
            table.node.replace_input_with(table.place, stage.companions[key])


def local_bias(op: g.Emitter, stage: Stage, reach: int, bias: ir.Value | None, dtype: ir.DataType) -> ir.Value:
    """(B or 1, 1, N, N): a bias per key (B, 1, 1, N), or 0, and a bar on keys that stood farther off than `reach`."""
    key = reach, bias, dtype
    if key not in stage.companions:
        near = np.array(0, dtype.numpy()) if bias is None else bias
        barred = op.Where(_far(op, stage, reach), np.array(BARRED, dtype.numpy()), near)
        stage.companions[key] = g.typed(barred, dtype, ["batch", 1, stage.tokens, stage.tokens])
    return stage.companions[key]


def _far(op: g.Emitter, stage: Stage, reach: int) -> ir.Value | np.ndarray:
    """(B or 1, 1, N, N) bool: whether a query and a key stood farther apart than `reach`."""
    if stage.positions is None:
        place = np.arange(stage.fixed)
        return (np.abs(place[:, None] - place) > reach)[None, None]
    places = op.Cast(stage.positions, to=ir.DataType.FLOAT)  # exact below 2^24, and known to every runtime
    keys, queries = op.Unsqueeze(places, np.array([1, 2])), op.Unsqueeze(places, np.array([1, 3]))
    far: ir.Value = op.Greater(op.Abs(op.Sub(queries, keys)), np.float32(reach))
    return far


def _rows(op: g.Emitter, table: Table, stage: Stage) -> ir.Value:
    """A table's rows for the tokens of a stage, (B, ..., N, ...) of the table's rank."""
    value, rank, axis = table.value, table.rank, table.axis
    assert stage.positions is not None
    shape: list[int | str | ir.SymbolicDim] = list(value.shape or ())
    places = behind(op, stage.positions, table.cut)
    if table.cut:
        places = op.Sub(places, np.array(table.cut))
    if len(shape) == rank and shape[0] != 1:  # rows of each sample's own
        found = take(op, value, axis, places)
    else:
        shared = [1] * (rank - 1 - len(shape)) + shape[-(rank - 1) :]
        rows = value if shared == shape else op.Reshape(value, np.array(shared))
        found = op.Gather(rows, places, axis=axis - 1)  # the batch stands in front of the rows
        if axis > 1:
            found = op.Transpose(found, perm=[axis - 1, *range(axis - 1), *range(axis, rank)])
        shape = ["batch", *shared]
    shape[axis] = g.without(stage.tokens, table.cut)
    return g.typed(found, value.dtype, shape)
