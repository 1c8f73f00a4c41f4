"""Typing a graph: fp16 throughout, or weights in bf16.

fp16: every value that descends from a weight or a float input becomes fp16; inputs and outputs stay fp32, so that
what feeds the model need not change. What is computed from integers alone (the lengths behind a mask) stays fp32: 8000
samples are no fp16 number. Techniques compare tokens and add them up in fp32 again.

bf16: weights are stored in bf16 and widened where they are used, because onnxruntime has no bf16 kernels on a CPU
(1.23 to 1.32 refuse Add, Mul and MatMul). The graph then runs everywhere, at half the size on disk.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgetok import graph as g

SEARCH = "NearestCode"  # in fp32 whatever else is: the nearest of thousands of codes are no rounding of fp16 apart
FLOAT, HALF, BFLOAT = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def retype(model: ir.Model, dtype: str) -> None:
    """Type a graph, in place.

    Args:
        model: a graph in fp32.
        dtype: "fp32" (nothing happens), "fp16" or "bf16".
    """
    if dtype == "fp16":
        _to_half(model.graph)
    elif dtype == "bf16":
        _store_bfloat(model.graph)


def _to_half(graph: ir.Graph) -> None:
    """fp16 wherever a weight or a float input has come in."""
    first = graph[0]
    half = {value: _cast(graph, value, HALF, first) for value in graph.inputs if value.dtype == FLOAT}
    narrow = set(half.values())
    for node in [node for node in graph if node.outputs[0] not in narrow]:
        floats = [value for value in node.inputs if value is not None and (value.dtype == FLOAT or value in narrow)]
        computed = [value for value in floats if not value.is_initializer()]
        if node.op_type == SEARCH:
            for place, value in enumerate(node.inputs):
                if value in narrow:
                    node.replace_input_with(place, _cast(graph, value, FLOAT, node))
            continue
        if not floats or (computed and not any(value in half or value in narrow for value in computed)):
            continue  # integers, or what follows from them alone
        for place, value in enumerate(node.inputs):
            if value is None or value.dtype != FLOAT:
                continue
            if value not in half:
                narrower = _narrow(graph, value, HALF) if value.is_initializer() else _cast(graph, value, HALF, node)
                half[value] = narrower
            node.replace_input_with(place, half[value])
        if node.op_type == "Cast" and g.attribute(node, "to") == FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(HALF))
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.dtype = HALF
                narrow.add(value)
    for place, value in enumerate(list(graph.outputs)):
        if value.dtype == HALF:
            output = _cast(graph, value, FLOAT)
            value.name, output.name = f"{value.name}_half", value.name
            graph.outputs[place] = output
    _drop_unused(graph)


def _store_bfloat(graph: ir.Graph) -> None:
    """bf16 weights, each widened once in front of the graph."""
    first = graph[0]
    for weight in [value for value in graph.initializers.values() if value.dtype == FLOAT]:
        users = [(node, place) for node, place in g.consumers(weight) if node.op_type != SEARCH]
        if not users:
            continue
        wide = _cast(graph, _narrow(graph, weight, BFLOAT), FLOAT, first)
        for node, place in users:
            node.replace_input_with(place, wide)
    _drop_unused(graph)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, before: ir.Node | None = None) -> ir.Value:
    cast = g.Emitter(graph, before).Cast(value, to=dtype)
    return g.typed(cast, dtype, list(value.shape or ()))


def _narrow(graph: ir.Graph, weight: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A copy of a weight in a narrower type, rounded to nearest."""
    array = g.constant_of(weight)
    assert array is not None
    with np.errstate(over="ignore"):  # a mask's -3e38 becomes -inf, as it means
        return g.constant(graph, array.astype(dtype.numpy()))


def _drop_unused(graph: ir.Graph) -> None:
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
