"""Standard DequantizeLinear in front of a MatMul: TensorRT's spelling of weights of few bits, and ONNX's own.

FLOAT4E2M1 with block scales; NVFP4's E4M3 scales are dequantised by the global scale first, as in NVIDIA's Model
Optimizer (onnx/export/nvfp4_exporter.py). E4M3 as FLOAT8E4M3FN. Integers of up to 4 bits as INT4, of 8 as INT8,
symmetric: TensorRT takes no zero points. Whole steps of 2 bits are written as INT4 too: INT2 came with opset 25, which
onnxruntime 1.32 and ONNX's reference evaluator compute exactly, but onnxruntime 1.23.2 does not load and TensorRT-RTX
1.7.1 does not import (measured). NF4, learnt codebooks and several planes have no such spelling.

onnxruntime's CPU provider runs all but FLOAT4E2M1; ONNX's reference evaluator runs that too, and is what the FP4 form
is tested with. FLOAT4E2M1 needs IR version 11.
"""

from __future__ import annotations

from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.lowbit import e4m3
from edgetok.lowbit.node import swap
from edgetok.lowbit.weight import Weight
from edgetok.lowering.matmulnbits import whole_steps

E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)  # by code
Kind = Literal["fp4", "fp8", "int4", "int8"]


def kind(weight: Weight) -> Kind | None:
    """The precision that a device must have for this weight; None where there is no such form."""
    if weight.codebook.shape[:2] != (1, 1):
        return None
    if weight.bits == 4 and np.array_equal(weight.codebook[0, 0], E2M1):
        return "fp4"
    if weight.bits == 8 and np.array_equal(weight.codebook[0, 0], e4m3.LEVELS, equal_nan=True):
        return "fp8"
    levels = whole_steps(weight.codebook)
    if levels is None:
        return None
    return "int4" if levels[0].min() >= -8 and levels[0].max() <= 7 else "int8"


def lower(graph: ir.Graph, node: ir.Node, weight: Weight) -> bool:
    """Put DequantizeLinear, Transpose and MatMul in the node's place; False where the weight has no such form."""
    form = kind(weight)
    if form is None:
        return False
    if form in ("fp4", "fp8"):
        codes, step = (
            weight.codes.view(ml_dtypes.float4_e2m1fn if form == "fp4" else ml_dtypes.float8_e4m3fn),
            np.float32(1),
        )
    else:
        levels = whole_steps(weight.codebook)
        assert levels is not None
        integers, step = levels
        codes = integers.astype(np.int8)[weight.codes].astype(ml_dtypes.int4 if form == "int4" else np.int8)

    def write(op: g.Emitter, x: ir.Value) -> ir.Value:
        assert x.dtype is not None
        matrix = g.named(_dequantised(op, weight, codes, step, x.dtype), f"{node.name}.DequantizeLinear")
        product: ir.Value = op.MatMul(x, g.named(op.Transpose(matrix, perm=[1, 0]), f"{node.name}.Transpose"))
        return product

    swap(graph, node, write)
    return True


def _dequantised(op: g.Emitter, weight: Weight, codes: np.ndarray, step: np.float32, dtype: ir.DataType) -> ir.Value:
    """(N, K) in the activations' type."""
    inputs = weight.shape[1]
    layout = {"axis": 1, "block_size": weight.block}
    scales: object = weight.wide_scales[..., 0] * step
    if weight.block >= inputs:  # one scale for an output
        layout, scales = {"axis": 0}, weight.wide_scales[:, 0, 0] * step
    if weight.scales.dtype == ml_dtypes.float8_e4m3fn and weight.block < inputs:
        scales = op.DequantizeLinear(weight.scales[..., 0], np.float32(weight.global_scale) * step)
        scales = scales if dtype == ir.DataType.FLOAT else op.Cast(scales, to=dtype)
    else:  # TensorRT takes positive ones only; in half precision, that of a block of zeros may be none
        stored = np.asarray(scales, dtype.numpy())
        scales = np.maximum(stored, np.nextafter(stored.dtype.type(0), stored.dtype.type(1)))
    matrix: ir.Value = op.DequantizeLinear(codes, scales, **layout)
    return matrix
