"""Activations of 4-bit floats that a device's TensorRT cannot round.

TRT_FP4DynamicQuantize takes 2 or 3 axes, the last of whole blocks of 16; TensorRT-RTX 1.7.1 builds it for compute
capability 12.0 and refuses it for 8.9 and 8.6 (measured). Those of LLM-FP4 no device multiplies. Activations of eight
bits have types of their own, and `precisions` looks at these.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for each kind of obstacle."""
    if not target.tensorrt:
        return
    from edgetok.lowering.activations import ROUNDINGS, obstacle

    for node in graph.nodes():
        if (node.domain, node.op_type) in ROUNDINGS and (found := obstacle(node, target.device)):
            yield error(node, *found)


LEVELS = (
    '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
    "g (float[1,8,64] x, float[64] s, float[8] l) => (float[1,8,64] y) { y = edgetok.RoundToLevels (x, s, l) }"
)


def _graph(shape: str) -> str:
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g (float[{shape}] x, float s) => (float[{shape}] y) {{ y = edgetok.RoundToNVFP4 (x, s) }}"
    )


EXAMPLES = (
    Example("rtx-4090", _graph("1,8,64"), "error", "has no fp4 activations: it has fp8, int8"),
    Example("jetson-orin-nano-jp62", _graph("1,8,64"), "error", "export with --activations int8"),
    Example("x86-cpu", _graph("1,8,64"), None),
    Example("rtx-5090", LEVELS, "error", "has no llm-fp4 activations: it has fp4, fp8, int8"),
    Example("x86-cpu", LEVELS, None),
)
