"""ONNX Runtime's MatMulIntegerToFloat: int8 weights times activations that the graph itself rounds to int8.

A product's input is a DequantizeLinear with one static scale, and its weight has 8 bits and one scale for an output: so
the sum is one of integers, which fp32 scales once, and the bias behind it is added in the same node. It is what
ONNX Runtime fuses such DequantizeLinear and a MatMul into, but for the bias; written out, the node keeps its name, by
which profiles know the block. See com.microsoft.MatMulIntegerToFloat in ONNX Runtime's docs/ContribOperators.md.

Codes of activations are moved by 128 into uint8, with a zero point of 128: the same numbers. On an x86 CPU with VNNI
uint8 x int8 takes 0.3 of fp32's time at (257, 384) x (384, 1536), and 0.4 with a bias added apart; int8 x int8 takes
5.5 times as long, uint8 x uint8 as long (onnxruntime 1.32). On one without VNNI the kernels of uint8 x int8 add pairs
in 16 bits, which saturate: 127 x 127 x 64 comes out as 8160. Whether they do is tried out, and the weights are moved as
well where they do: uint8 x uint8 is exact everywhere.

QuantizeLinear and DequantizeLinear are those of com.microsoft: onnxruntime 1.23 has none of opset 23.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.lowbit.weight import Weight
from edgetok.lowering.matmulnbits import whole_steps

DOMAIN = "com.microsoft"
ZERO = np.uint8(128)  # of codes in uint8
LARGEST, ENOUGH = 127, 64  # a code, and how many of its squares no sum of 16 bits holds


def lower(graph: ir.Graph, node: ir.Node, weight: Weight) -> bool:
    """Put a MatMulIntegerToFloat in the place of a LutMatMul and the Add behind it; False for what it does not know."""
    levels = whole_steps(weight.codebook) if weight.bits == 8 and weight.block >= weight.shape[1] else None
    pair = rounding(node.inputs[0])
    if levels is None or pair is None:
        return False
    quantize, dequantize = pair
    scale = g.constant_of(dequantize.inputs[1])
    assert scale is not None
    _unsigned(graph, quantize, dequantize)
    integers, step = levels
    scales = weight.wide_scales[:, 0, 0] * step
    add, bias = _bias(node, len(scales))
    op, old = g.Emitter(graph, before=node), (add or node).outputs[0]
    matrix = np.ascontiguousarray(integers[weight.codes].T)  # (K, N)
    new = _product(op, quantize.outputs[0], matrix, scale.astype(np.float32), scales, bias, unsigned=saturates())
    g.named(new, node.name or "")
    if old.dtype not in (None, ir.DataType.FLOAT):
        g.typed(new, ir.DataType.FLOAT, list(old.shape or ()))
        new = g.named(op.Cast(new, to=old.dtype), f"{node.name}.Cast")
    g.take_place(old, new)
    for done in filter(None, (add, node)):
        graph.remove(done, safe=True)
    return True


def _product(
    op: g.Emitter,
    x: ir.Value,
    matrix: np.ndarray,
    scale: np.ndarray | np.float32,
    scales: np.ndarray,
    bias: np.ndarray | None,
    *,
    unsigned: bool,
) -> ir.Value:
    """x (..., K) uint8 around 128 times integers (K, N) of -128 to 127, which are stored unsigned or not."""
    codes, zero = (matrix.astype(np.int8), np.int8(0)) if not unsigned else ((matrix + ZERO).astype(np.uint8), ZERO)
    inputs = (x, codes, scale, scales, ZERO, zero, *(() if bias is None else (bias,)))
    product: ir.Value = op.MatMulIntegerToFloat(*inputs, domain=DOMAIN)
    return product


@cache
def saturates() -> bool:
    """Whether this machine's kernels of uint8 x int8 give wrong sums: for one row, or for several."""
    import onnxruntime

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(["rows", ENOUGH]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": g.OPSET, DOMAIN: 1}, name="largest")
    one, matrix = np.float32(1), np.full((ENOUGH, 16), LARGEST)
    y = _product(g.Emitter(graph), x, matrix, one, np.ones(16, np.float32), None, unsigned=False)
    y.name = "y"
    graph.outputs.append(g.typed(y, ir.DataType.FLOAT, ["rows", 16]))
    proto = ir.to_proto(ir.Model(graph, ir_version=g.IR_VERSION))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    given = np.full((5, ENOUGH), LARGEST + int(ZERO), np.uint8)
    sums = [session.run(None, {"x": given[:rows]})[0] for rows in (1, 5)]
    return any((each != ENOUGH * LARGEST**2).any() for each in sums)


def rounding(value: ir.Value | None) -> tuple[ir.Node, ir.Node] | None:
    """The QuantizeLinear and DequantizeLinear that make a value of few bits, symmetric and with one static scale."""
    dequantize = value.producer() if value is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or dequantize.inputs[0] is None:
        return None
    quantize = dequantize.inputs[0].producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    for pair in (quantize, dequantize):
        scale, zero = (g.constant_of(given) for given in (*pair.inputs[1:], None)[:2])
        middle = None if zero is None else {"int8": 0, "uint8": int(ZERO)}.get(zero.dtype.name)
        if scale is None or zero is None or scale.size != 1 or middle is None or (zero != middle).any():
            return None
    return quantize, dequantize


def _unsigned(graph: ir.Graph, quantize: ir.Node, dequantize: ir.Node) -> None:
    """Let a pair write uint8 around 128; whoever else reads it, reads the same numbers."""
    zero = g.constant(graph, np.asarray(ZERO))
    for node in (quantize, dequantize):
        node.replace_input_with(2, zero)
    quantize.outputs[0].dtype = ir.DataType.UINT8


def _bias(node: ir.Node, outputs: int) -> tuple[ir.Node | None, np.ndarray | None]:
    """The Add behind a product that nothing else reads, and what it adds, (N,) fp32; None where there is none."""
    users = g.consumers(node.outputs[0])
    if len(users) != 1 or users[0][0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None, None
    add, place = users[0]
    array = g.constant_of(add.inputs[1 - place])
    if array is None or array.size != outputs or array.shape[-1:] != (outputs,) or array.ndim > 1:
        return None, None
    return add, array.astype(np.float32)


def in_any_version(model: ir.Model) -> None:
    """Let all roundings to int8 be those of com.microsoft, which every onnxruntime has."""
    for node in model.graph:
        for each in rounding(node.outputs[0]) or ():
            each.domain = DOMAIN
            model.opset_imports[DOMAIN] = 1
