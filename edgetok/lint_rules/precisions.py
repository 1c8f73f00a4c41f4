"""Tensor types that the device's hardware does not compute with.

The profile's `precisions` say which; TensorRT-RTX 1.7.1 refuses the rest while building (measured: FP8 below compute
capability 8.9, 4-bit floats below 12.0). 4-bit floats are imported since TensorRT 10.8.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Finding, Graph, Target, error

TYPES = {
    "BFLOAT16": "bf16", "FLOAT8E4M3FN": "fp8", "FLOAT8E5M2": "fp8", "FLOAT4E2M1": "fp4",
    "INT4": "int4", "UINT4": "int4", "INT8": "int8",
}  # fmt: skip
REWRITE = {
    "bf16": "use float16",
    "fp8": "use int8, with QuantizeLinear and DequantizeLinear",
    "fp4": "keep 4-bit weights as int4, or write the codes as a 16-entry table",
}


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per type and operator."""
    if not target.tensorrt:
        return
    device = target.device
    for node in graph.nodes():
        for value in (*node.inputs, *node.outputs):
            needed = TYPES.get(value.dtype.name) if value is not None and value.dtype is not None else None
            if needed and needed not in device.precisions:
                yield error(node, f"{needed} needs hardware that compute capability {device.sm} does not have",
                            REWRITE.get(needed, "use float16"))  # fmt: skip
            elif needed == "fp4" and target.below("tensorrt", "10.8"):
                yield error(node, f"tensorrt {target.runtime.version} imports no 4-bit floats: they came with 10.8", REWRITE["fp4"])
