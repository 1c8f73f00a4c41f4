"""The search in a large codebook, spelt as distances or products of all pairs and an ArgMin or ArgMax -> NearestCode.

Encoders of discrete tokenizers write it in many ways: |x|^2 + |c|^2 - 2 x c, products and a bias, cosines. What is
searched is a sum in which one term is x times the codebook; terms with one number per token change no order, and those
with one number per code become the bias. The matrix of all pairs, 537 MB at Emu3's 32768 codes and 4096 tokens, is
never there then. benchmarks/README.md has the measurements behind `pays`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgetok import graph as g

CODES = 4096  # with fewer, a product of all pairs and its ArgMax are as fast
WIDTHS = 32  # codes for each channel: in wider codebooks the products take the time, not what is done with them
SCORES = 2**19  # pairs of tokens and codes, 2 MB: with fewer, the steps of the search take longer than its work

PRODUCT = re.compile(r"(\w)(\w),\2(\w)->\1\3")  # an Einsum that is a MatMul

Term = tuple[float, ir.Value]  # a factor and what it multiplies


def pays(codes: int, width: int, tokens: int | None = None) -> bool:
    """Whether NearestCode is at least as fast as all pairs at once.

    Args:
        codes: K.
        width: D.
        tokens: how many of a sample are searched for; None where the graph does not say.
    """
    return codes >= max(CODES, WIDTHS * width) and (tokens is None or tokens * codes >= SCORES)


def fuse_nearest_code(model: ir.Model) -> None:
    """Fuse every search where it pays, in place."""
    for node in list(model.graph):
        if node.op_type in ("ArgMax", "ArgMin") and node.domain == "":
            _fuse(model.graph, node)


def _fuse(graph: ir.Graph, node: ir.Node) -> None:
    scores, found = node.inputs[0], node.outputs[0]
    rank = g.rank(scores)  # type: ignore[arg-type]
    last = rank is not None and g.attribute(node, "axis", 0) in (-1, rank - 1)
    if not last or rank not in (2, 3) or g.attribute(node, "keepdims", 1) or g.attribute(node, "select_last_index", 0):
        return
    terms = list(_terms(scores, -1.0 if node.op_type == "ArgMin" else 1.0))  # type: ignore[arg-type]
    products = [(factor, pair) for factor, value in terms if (pair := _product(value)) is not None]
    if len(products) != 1:
        return
    (factor, (x, matrix)), shape = products[0], g.static_shape(products[0][1][1])
    if x.dtype != ir.DataType.FLOAT or shape is None or None in shape or not pays(shape[1], shape[0], _tokens(x)):  # type: ignore[arg-type]
        return
    bias = _bias(graph, terms, factor, shape[1])  # type: ignore[arg-type]
    if bias is None:
        return
    op = g.Emitter(graph, before=node)
    batch = [0] if rank == 2 else None  # NearestCode takes tokens in a batch
    tokens = x if batch is None else op.Unsqueeze(x, np.array(batch))
    index = op.NearestCode(tokens, _rows(graph, matrix, np.sign(factor)), bias, domain="edgetok")
    g.take_place(found, index if batch is None else op.Squeeze(index, np.array(batch)))
    if batch is not None:
        g.typed(tokens, x.dtype, [1, *x.shape])  # type: ignore[misc]
        g.typed(index, found.dtype, [1, *(found.shape or ())])


def _terms(value: ir.Value, factor: float) -> Iterator[Term]:
    """What a value is the sum of; a sum that something else reads too is one term."""
    node = value.producer()
    if node is not None and len(value.uses()) == 1 and not value.is_graph_output():
        first, second = (*node.inputs, None, None)[:2]
        assert first is not None or second is None
        if node.op_type in ("Add", "Sub"):
            yield from _terms(first, factor)  # type: ignore[arg-type]
            yield from _terms(second, factor if node.op_type == "Add" else -factor)  # type: ignore[arg-type]
            return
        if node.op_type == "Neg":
            yield from _terms(first, -factor)  # type: ignore[arg-type]
            return
        for scale, scaled in ((second, first), (first, second)) if node.op_type == "Mul" else ():
            number = g.constant_of(scale)
            if number is not None and number.size == 1:
                yield from _terms(scaled, factor * float(number.item()))  # type: ignore[arg-type]
                return
    yield factor, value


def _product(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """x (..., D) and the matrix (D, K) of weights alone that it is multiplied by."""
    node = value.producer()
    if node is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if node.op_type == "Einsum":
        if not PRODUCT.fullmatch(str(g.attribute(node, "equation")).replace(" ", "")):
            return None
    elif node.op_type != "MatMul":
        return None
    x, matrix = node.inputs
    if x is None or matrix is None or g.rank(matrix) != 2 or not g.is_data_free(matrix) or g.is_data_free(x):
        return None
    return x, matrix


def _tokens(x: ir.Value) -> int | None:
    """Of a sample, where the graph says it: (B, N, D) with N a number; of (B N, D) it does not."""
    shape = g.static_shape(x) or []
    return shape[1] if len(shape) == 3 else None


def _bias(graph: ir.Graph, terms: list[Term], factor: float, codes: int) -> np.ndarray | None:
    """(K,): what is added to the products, over their factor's size; None where a term belongs to each pair."""
    bias = np.zeros(codes)
    for own, value in terms:
        shape = g.static_shape(value)
        if _product(value) is not None or (shape is not None and shape[-1:] in ([], [1])):
            continue  # the products; the same for all codes
        if not g.is_data_free(value) or shape is None or shape[-1] != codes or any(size != 1 for size in shape[:-1]):
            return None
        bias += _array(graph, value).reshape(-1).astype(np.float64) * (own / abs(factor))
    return bias.astype(np.float32)


def _rows(graph: ir.Graph, matrix: ir.Value, sign: float) -> ir.Value:
    """The matrix (D, K) as a codebook (K, D), which the graph may hold already for what ids stand for."""
    rows = np.ascontiguousarray(_array(graph, matrix).T * np.float32(sign))
    for value in graph.initializers.values():
        if g.static_shape(value) == list(rows.shape) and value.dtype == ir.DataType.FLOAT:
            held = g.constant_of(value)
            if held is not None and np.array_equal(held, rows):
                return value
    return g.constant(graph, rows)


def _array(graph: ir.Graph, value: ir.Value) -> np.ndarray:
    """The content of what no input changes."""
    held = g.constant_of(value)
    return g.evaluate(graph, [value], {})[0] if held is None else held
