"""However a search in a large codebook is spelt, it ends as one NearestCode that finds the same codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes import common

from edgetok import graph as g
from edgetok import plugins
from edgetok.flops import macs
from edgetok.retype import retype
from edgetok.rewrite.nearest_code import fuse_nearest_code, pays
from tests.comparison import run, session

CODES, WIDTH, TOKENS = 5000, 6, 130
ROWS = np.random.default_rng(0).standard_normal((CODES, WIDTH)).astype(np.float32)
LENGTHS = np.square(ROWS).sum(axis=1)
LAST = np.array([-1])
Search = Callable[[g.Emitter, ir.Value], ir.Value]


def flat(op: g.Emitter, x: ir.Value) -> ir.Value:
    """(B, N, D) -> (B N, D)"""
    return g.typed(op.Reshape(x, np.array([-1, WIDTH])), ir.DataType.FLOAT, ["tokens", WIDTH])


def nearest(op: g.Emitter, distances: ir.Value, **options: object) -> ir.Value:
    return op.ArgMin(distances, **{"axis": -1, "keepdims": 0} | options)


def emu3(op: g.Emitter, x: ir.Value) -> ir.Value:
    x = flat(op, x)
    own = op.ReduceSum(op.Pow(x, np.float32(2)), np.array([1]), keepdims=1)
    return nearest(op, op.Sub(op.Add(own, LENGTHS), op.Mul(op.MatMul(x, ROWS.T), np.float32(2))), axis=1)


def janus(op: g.Emitter, x: ir.Value) -> ir.Value:
    """The codebook's part is computed in the graph."""
    x, rows = flat(op, x), g.constant(op.graph, ROWS)
    own = op.ReduceSum(op.Pow(x, np.float32(2)), np.array([1]), keepdims=1)
    lengths = op.ReduceSum(op.Pow(rows, np.float32(2)), np.array([1]), keepdims=0)
    products = op.Einsum(x, op.Transpose(rows, perm=[1, 0]), equation="bd,dn->bn")
    return nearest(op, op.Sub(op.Add(own, lengths), op.Mul(np.float32(2), products)), axis=1)


def residual(op: g.Emitter, x: ir.Value) -> ir.Value:
    return op.ArgMax(op.Add(op.MatMul(x, ROWS.T), LENGTHS / -2), axis=-1, keepdims=0)


def negated(op: g.Emitter, x: ir.Value) -> ir.Value:
    own = op.ReduceSumSquare(x, LAST)
    distances = op.Add(op.Sub(op.MatMul(op.Mul(x, np.float32(-2)), ROWS.T), op.Neg(own)), LENGTHS[None])
    return op.ArgMax(op.Neg(distances), axis=2, keepdims=0)


def cosine(op: g.Emitter, x: ir.Value) -> ir.Value:
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    return op.ArgMax(op.MatMul(op.Div(x, op.ReduceL2(x, LAST)), unit.T), axis=-1, keepdims=0)


def few(op: g.Emitter, x: ir.Value) -> ir.Value:
    return op.ArgMax(op.MatMul(x, ROWS[:4000].T), axis=-1, keepdims=0)


def farthest(op: g.Emitter, x: ir.Value) -> ir.Value:
    return nearest(op, op.MatMul(x, ROWS.T))


def kept(op: g.Emitter, x: ir.Value) -> ir.Value:
    return nearest(op, op.Sub(LENGTHS, op.MatMul(x, ROWS.T)), keepdims=1)


def last(op: g.Emitter, x: ir.Value) -> ir.Value:
    return op.ArgMax(op.MatMul(x, ROWS.T), axis=-1, keepdims=0, select_last_index=1)


def weighed(op: g.Emitter, x: ir.Value) -> ir.Value:
    """A term with a number for each pair."""
    return op.ArgMax(op.Add(op.MatMul(x, ROWS.T), op.Sin(op.MatMul(x, ROWS.T))), axis=-1, keepdims=0)


def read_twice(op: g.Emitter, x: ir.Value) -> ir.Value:
    """The scores are there anyhow, for what is known of the best."""
    scores = op.MatMul(x, ROWS.T)
    best = op.Cast(op.ReduceMax(scores, LAST, keepdims=0), to=ir.DataType.INT64)
    return op.Add(op.ArgMax(scores, axis=-1, keepdims=0), op.Sub(best, best))


def graph_of(search: Search, tokens: int = TOKENS) -> ir.Model:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", tokens, WIDTH]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET}, name="search")
    ids = search(g.Emitter(graph), g.Emitter(graph).Tanh(x))
    ids.name, ids.dtype = "ids", ir.DataType.INT64
    graph.outputs.append(ids)
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(ir.Model(graph, ir_version=g.IR_VERSION))))


def fuse(model: ir.Model) -> None:
    """As `normalise` does it, without the rest of it."""
    fuse_nearest_code(model)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)


X = {"x": torch.from_numpy(np.random.default_rng(1).standard_normal((2, TOKENS, WIDTH)).astype(np.float32))}


@pytest.mark.parametrize("search", [emu3, janus, residual, negated, cosine, farthest])
def test_is_one_node(search: Search) -> None:
    """With the same ids; a rank of two comes back; the multiplications are those of the product that it was."""
    model = graph_of(search)
    wanted = run(session(model), X)["ids"]
    fuse(model)
    found = Counter(node.op_type for node in model.graph)
    assert found["NearestCode"] == 1 and not {"ArgMin", "ArgMax", "MatMul", "Einsum"} & set(found)
    (node,) = (node for node in model.graph if node.op_type == "NearestCode")
    assert macs(node) == CODES * WIDTH * (TOKENS if len(wanted.shape) == 2 else 1)
    plugins.add_functions(model)
    assert (run(session(model), X)["ids"] == wanted).all() and len(wanted.unique()) > 50


@pytest.mark.parametrize("search", [few, kept, last, weighed, read_twice])
def test_stays_as_it_is(search: Search) -> None:
    model = graph_of(search)
    fuse(model)
    assert "NearestCode" not in {node.op_type for node in model.graph}


def test_few_tokens_are_compared_with_all_codes() -> None:
    model = graph_of(residual, tokens=8)
    fuse(model)
    assert "NearestCode" not in {node.op_type for node in model.graph}
    assert pays(8192, 256) and not pays(4096, 512) and pays(32768, 40, 36) and not pays(32768, 40, 9)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_searches_in_fp32(dtype: str) -> None:
    """Whatever else the graph computes in: of what reaches the search, the nearest code is found."""
    model = graph_of(residual)
    fuse(model)
    retype(model, dtype)
    plugins.add_functions(model)
    given = torch.tanh(X["x"].half()).float() if dtype == "fp16" else torch.tanh(X["x"])
    wanted = torch.cdist(given.double(), torch.from_numpy(ROWS).double()).argmin(dim=-1)
    ids = run(session(model), X)["ids"]
    assert (ids == wanted).float().mean() >= (0.95 if dtype == "fp16" else 1)


def test_the_codebook_is_there_once() -> None:
    """What ids stand for are the rows that are searched."""

    def there_and_back(op: g.Emitter, x: ir.Value) -> ir.Value:
        rows = op.Gather(g.constant(op.graph, ROWS, "rows"), residual(op, x), axis=0)
        return op.Cast(op.ReduceSum(rows, LAST, keepdims=0), to=ir.DataType.INT64)

    model = graph_of(there_and_back)
    fuse(model)
    held = [value.name for value in model.graph.initializers.values() if list(value.shape) == [CODES, WIDTH]]
    assert held == ["rows"]
