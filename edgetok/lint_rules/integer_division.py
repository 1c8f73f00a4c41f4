"""Integer division of a negative number: ONNX truncates toward zero, Python's // rounds down.

A length traced as -((-a) // s), the usual way of rounding up, comes out one too small without an error.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, constant, warning

if TYPE_CHECKING:
    import onnx_ir as ir


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for all divisions of a negated integer."""
    for node in graph.nodes("Div"):
        dividend = node.inputs[0]
        if dividend is not None and dividend.dtype is not None and dividend.dtype.is_integer() and _negated(dividend):
            yield warning(
                node,
                "divides a negated integer: ONNX truncates toward zero where Python's // rounds down",
                "trace (a + s - 1) // s, or fix the length so that the shape is a constant",
            )


def _negated(value: "ir.Value") -> bool:
    node = value.producer()
    if node is None or node.op_type == "Neg":
        return node is not None
    factors = [constant(v) for v in node.inputs] if node.op_type == "Mul" else []
    return any(f is not None and f.size == 1 and f.reshape(-1)[0] < 0 for f in factors)


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (int64[1] n, int64[1] s) => (int64[1] y) { a = Neg(n) b = Div(a, s) y = Neg(b) }",
        "warning",
        "truncates toward zero",
    ),
    Example(
        "x86-cpu",
        "g (int64[1] n, int64[1] s) => (int64[1] y) <int64 m = {-1}> { a = Mul(n, m) y = Div(a, s) }",
        "warning",
        "(a + s - 1) // s",
    ),
    Example("x86-cpu", "g (int64[1] n, int64[1] s) => (int64[1] y) { y = Div(n, s) }", None),
    Example("x86-cpu", "g (float[1] n, float[1] s) => (float[1] y) { a = Neg(n) y = Div(a, s) }", None),
)
