"""Arithmetic in float64.

TensorRT's operator table: DOUBLE is cast to FLOAT, clamped. On a processor it takes half of the vector width.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, warning


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per operator that computes in float64."""
    import onnx_ir as ir

    reason = (
        "TensorRT casts float64 to float32 and clamps it"
        if target.tensorrt
        else "computes in float64: half as fast as float32"
    )
    for node in graph.nodes():
        if node.op_type not in ("Cast", "Constant") and any(o.dtype == ir.DataType.DOUBLE for o in node.outputs):
            yield warning(node, reason, "compute in float32; look for a float64 constant that promotes what it meets")


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (double[4] x) => (double[4] y) { y = Relu(x) }",
        "warning",
        "casts float64 to float32",
    ),
    Example("x86-cpu", "g (double[4] x) => (double[4] y) { y = Relu(x) }", "warning", "half as fast"),
    Example("x86-cpu", "g (double[4] x) => (float[4] y) { y = Cast <to = 1> (x) }", None),
)
