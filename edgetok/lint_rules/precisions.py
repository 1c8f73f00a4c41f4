"""Tensor types that the device, or its runtime, does not compute with.

The profile's `precisions` say which; TensorRT-RTX 1.7.1 refuses the rest while building (measured: FP8 below compute
capability 8.9, 4-bit floats below 12.0). 4-bit floats are imported since TensorRT 10.8; 2-bit integers, which came
with opset 25, by none: TensorRT-RTX 1.7.1 has no such type and fails to import the initializer (measured).
"""

from collections.abc import Iterator
from typing import get_args

from edgetok.device import Precision
from edgetok.lint_rules import Example, Finding, Graph, Target, error

TYPES = {
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "fp8",
    "FLOAT8E5M2": "fp8",
    "FLOAT4E2M1": "fp4",
    "INT4": "int4",
    "UINT4": "int4",
    "INT8": "int8",
    "INT2": "int2",
    "UINT2": "int2",
}
REWRITE = {
    "bf16": "use float16",
    "fp8": "use int8, with QuantizeLinear and DequantizeLinear",
    "fp4": "keep 4-bit weights as int4, or write the codes as a 16-entry table",
    "int2": "store the codes as int4",
}


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per type and operator."""
    if not target.tensorrt:
        return
    device = target.device
    for node in graph.nodes():
        for value in (*node.inputs, *node.outputs):
            needed = TYPES.get(value.dtype.name) if value is not None and value.dtype is not None else None
            if needed == "int2":
                yield error(node, f"{target.runtime.name} has no 2-bit integers", REWRITE["int2"])
            elif needed and (missing := device.lacks(needed, "", get_args(Precision))):
                yield error(node, missing[0], REWRITE.get(needed, "use float16"))
            elif needed == "fp4" and target.below("tensorrt", "10.8"):
                yield error(
                    node,
                    f"tensorrt {target.runtime.version} imports no 4-bit floats: they came with 10.8",
                    REWRITE["fp4"],
                )


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float8e4m3fn[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }",
        "error",
        "has no fp8: it has fp32, tf32, fp16, bf16, int8, int4",
    ),
    Example("rtx-4090", "g (float8e4m3fn[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }", None),
    Example(
        "rtx-4090",
        "g (float4e2m1[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }",
        "error",
        "keep 4-bit weights as int4",
    ),
    Example("jetson-orin-nano-jp62", "g (int4[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }", None),
    Example(
        "rtx-4090",
        "g (int2[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }",
        "error",
        "tensorrt-rtx has no 2-bit integers",
    ),
    Example("x86-cpu", "g (int2[2,4] x, float s) => (float[2,4] y) { y = DequantizeLinear(x, s) }", None),
)
