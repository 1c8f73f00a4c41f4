"""Activations of few bits for TensorRT: what a device cannot run, and NVFP4 as TensorRT spells it.

int8 and fp8 are QuantizeLinear and DequantizeLinear and stay as they are. A RoundToNVFP4 becomes
TRT_FP4DynamicQuantize (onnx-tensorrt, onnxOpImporters.cpp), which gives FLOAT4E2M1 and the blocks' E4M3 scales: those
are dequantised by the global scale, and the values by them, as NVIDIA's Model Optimizer writes it
(torch/quantization/export_onnx.py). TensorRT-RTX 1.7.1 takes 2 or 3 axes, the last of whole blocks (measured).

In half precision the blocks' scales are rounded to it, so that a value may differ from RoundToNVFP4's in the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgetok import graph as g

if TYPE_CHECKING:
    from edgetok.device import Device

BLOCK = 16
DOMAIN = "trt"  # the parser goes by the operator's name alone
ROUNDINGS = {("edgetok", "RoundToNVFP4"): "fp4", ("edgetok", "RoundToLevels"): "llm-fp4"}  # which no device has
PRECISIONS = {ir.DataType.INT8: "int8", ir.DataType.FLOAT8E4M3FN: "fp8", ir.DataType.FLOAT8E5M2: "fp8"}


def obstacle(node: ir.Node, device: Device) -> tuple[str, str] | None:
    """Why a device's TensorRT cannot round what a node rounds, and what to do; None where it can, or nothing is."""
    precision = _precision(node)
    if precision is None:
        return None
    if missing := precision_obstacle(precision, device):
        return missing
    shape = node.inputs[0].shape if precision == "fp4" and node.inputs[0] is not None else None
    if shape is not None and (len(shape) not in (2, 3) or not isinstance(shape[-1], int) or shape[-1] % BLOCK):
        return (
            f"activations of shape {shape} are given to a product of fp4, and TensorRT takes 2 or 3 axes, the last a "
            f"multiple of {BLOCK}",
            "leave the layer out with skip=, or export with --activations fp8",
        )
    return None


def precision_obstacle(precision: str, device: Device) -> tuple[str, str] | None:
    """Why a device multiplies no activations of a precision, and what to do; None where it does."""
    missing = device.lacks(precision, "activations", ("fp4", "fp8", "int8"))
    if missing is None:
        return None
    reason, known = missing
    return reason, f"export with --activations {' or '.join(known)}" if known else "export it without --activations"


def _precision(node: ir.Node) -> str | None:
    if (node.domain, node.op_type) in ROUNDINGS:
        return ROUNDINGS[node.domain, node.op_type]
    if node.domain == "" and node.op_type == "QuantizeLinear":
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        return PRECISIONS.get(zero.dtype) if zero is not None and zero.dtype is not None else None
    return None


def lower(graph: ir.Graph, node: ir.Node) -> None:
    """Put TRT_FP4DynamicQuantize and two DequantizeLinear in the place of a RoundToNVFP4."""
    x, scale = node.inputs[:2]
    assert x is not None and x.dtype is not None
    op, stem, shape = g.Emitter(graph, before=node), node.name or "", list(x.shape or ())
    codes, scales = op.TRT_FP4DynamicQuantize(
        x, scale, domain=DOMAIN, outputs=2, axis=-1, block_size=BLOCK, scale_type=int(ir.DataType.FLOAT8E4M3FN)
    )
    g.typed(g.named(codes, f"{stem}.Quantize"), ir.DataType.FLOAT4E2M1, shape)
    inner = shape[-1] if shape else None
    blocks = inner // BLOCK if isinstance(inner, int) else None
    g.typed(scales, ir.DataType.FLOAT8E4M3FN, [*shape[:-1], blocks] if shape else [])
    wide = g.named(op.DequantizeLinear(scales, scale), f"{stem}.scales")
    if x.dtype != ir.DataType.FLOAT:
        wide = g.named(op.Cast(wide, to=x.dtype), f"{stem}.scales.Cast")
    new = g.named(op.DequantizeLinear(codes, wide, axis=-1, block_size=BLOCK), f"{stem}.Dequantize")
    g.take_place(node.outputs[0], new)
    graph.remove(node, safe=True)
