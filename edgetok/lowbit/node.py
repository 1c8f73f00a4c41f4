"""How a weight of few bits stands in a graph: as a LutMatMul node, written and read back.

Codes, scales and global scale are initializers under the node's name. The scales keep their type; standard nodes widen
them to fp32 in front of the operator, and runtimes fold these at loading.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.lowbit.linear import Linear
from edgetok.lowbit.weight import Weight, pack, unpack


def replace(graph: ir.Graph, linear: Linear, weight: Weight) -> None:
    """Let a LutMatMul do what a linear layer did; a Gemm's bias is added behind it."""
    old = linear.node
    op = g.Emitter(graph, before=old)
    stem = linear.quantised_name
    inputs = weight.shape[1]
    packed = pack(np.pad(weight.codes, ((0, 0), (0, -inputs % weight.block))), weight.bits)
    scales = _scales(graph, op, weight, stem)
    table = _shared(graph, weight.codebook)
    new: ir.Value = op.LutMatMul(
        linear.input, g.constant(graph, packed, f"{stem}.codes"), table, scales, domain="edgetok", bits=weight.bits,
        inner=inputs,
    )  # fmt: skip
    g.named(new, stem)
    if old.op_type == "Gemm" and len(old.inputs) > 2 and old.inputs[2] is not None:
        g.typed(new, old.outputs[0].dtype, list(old.outputs[0].shape or ()))
        bias = g.constant_of(old.inputs[2])
        beta = float(g.attribute(old, "beta", 1.0))  # type: ignore[arg-type]
        new = op.Add(new, old.inputs[2] if bias is None else (bias * np.float32(beta)).astype(bias.dtype))
        g.named(new, f"{linear.name}.bias")
    g.take_place(old.outputs[0], new)
    graph.remove(old, safe=True)


def _scales(graph: ir.Graph, op: g.Emitter, weight: Weight, stem: str) -> ir.Value:
    """(N, G, P) fp32, from the type that is stored; standard nodes, which runtimes fold at loading."""
    stored, before = weight.scales, set(graph)
    value: ir.Value
    if stored.dtype == ml_dtypes.float8_e8m0fnu:  # no type of opset 23: the byte, 2^(byte - 127)
        exponent = op.Sub(op.Cast(g.constant(graph, stored.view(np.uint8), f"{stem}.scales"), to=1), np.float32(127))
        value = op.Pow(np.float32(2), exponent)
    else:
        value = g.constant(graph, stored, f"{stem}.scales")
        if stored.dtype != np.float32:
            value = op.Cast(value, to=1)
    if weight.global_scale != 1:
        value = op.Mul(value, g.constant(graph, np.array(weight.global_scale, np.float32), f"{stem}.global_scale"))
    for node in graph:
        if node not in before:
            node.name = f"{stem}.scale.{node.op_type}"
    return value


def swap(
    graph: ir.Graph, node: ir.Node, write: Callable[[g.Emitter, ir.Value], ir.Value], *, in_fp32: bool = False
) -> None:
    """Let something else do what a LutMatMul did.

    Args:
        graph: the node's.
        node: the LutMatMul.
        write: (writes nodes, input (..., K)) -> (..., N).
        in_fp32: whether it takes and gives fp32 only; half precision is widened and narrowed around it.
    """
    op, x = g.Emitter(graph, before=node), node.inputs[0]
    assert x is not None and x.dtype is not None
    widened = in_fp32 and x.dtype != ir.DataType.FLOAT
    new = g.named(write(op, op.Cast(x, to=ir.DataType.FLOAT) if widened else x), node.name or "")
    if widened:
        new = g.named(op.Cast(new, to=x.dtype), f"{node.name}.Cast")
    g.take_place(node.outputs[0], new)
    graph.remove(node, safe=True)


def read(node: ir.Node) -> Weight:
    """The weight of a LutMatMul node."""
    codes, codebook = g.constant_of(node.inputs[1]), g.constant_of(node.inputs[2])
    assert codes is not None and codebook is not None
    scales, global_scale = _read_scales(node.inputs[3])
    bits, inputs = int(g.attribute(node, "bits")), int(g.attribute(node, "inner"))  # type: ignore[call-overload]
    block = codes.shape[1] * 8 // bits // scales.shape[1]
    return Weight(unpack(codes, bits)[:, :inputs], bits, codebook, scales, block, global_scale)


def _read_scales(value: ir.Value | None) -> tuple[np.ndarray, float]:
    """What `_scales` wrote: in the type that is stored, and the global scale."""
    node, global_scale = value.producer() if value is not None else None, 1.0
    if node is not None and node.op_type == "Mul":
        found = g.constant_of(node.inputs[1])
        assert found is not None
        value, global_scale = node.inputs[0], float(found)
        node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Pow":
        node = node.inputs[1].producer().inputs[0].producer()  # type: ignore[union-attr]
        scales = g.constant_of(node.inputs[0])  # type: ignore[union-attr]
        assert scales is not None
        return scales.view(ml_dtypes.float8_e8m0fnu), global_scale
    scales = g.constant_of(node.inputs[0] if node is not None else value)
    assert scales is not None
    return scales, global_scale


def _shared(graph: ir.Graph, codebook: np.ndarray) -> ir.Value:
    """The codebook's initializer: the same for all layers that have the same."""
    for name, value in graph.initializers.items():
        if name.startswith("codebook.") and np.array_equal(value.const_value.numpy(), codebook, equal_nan=True):  # type: ignore[union-attr]
            return value
    number = sum(name.startswith("codebook.") for name in graph.initializers)
    return g.constant(graph, codebook, f"codebook.{number}")
