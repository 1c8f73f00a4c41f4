"""TopK outside TensorRT's limits.

TensorRT's operator table: `sorted` must be 1 and K at most 3840. A K that is computed is read since 8.6, but makes the
output's size depend on the data. The size of another tensor (Shape) does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, constant, error, static_dim, warning

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = 3840


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """Findings for K and for unsorted output."""
    if not target.tensorrt:
        return
    for node in graph.nodes("TopK"):
        fixed = constant(node.inputs[1])
        k = (
            int(fixed.reshape(-1)[0])
            if fixed is not None
            else static_dim(node.outputs[0], node.attributes.get_int("axis", -1))
        )
        if k is None and not _is_a_size(node.inputs[1]):
            yield warning(
                node,
                "K is computed: the size of the output depends on the data",
                "fix the number of tokens and make K a constant",
            )
        elif k is not None and k > LARGEST:
            yield error(
                node, f"K is {k}, TensorRT takes at most {LARGEST}", "select in two steps, or from fewer tokens"
            )
        if not node.attributes.get_int("sorted", 1):
            yield error(node, "sorted=0, TensorRT takes sorted=1 only", "set sorted=1")


def _is_a_size(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "Shape"


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,n] x) => (float[1,n] y, int64[1,n] i) { k = Shape <start = 1, end = 2> (x) y, i = TopK(x, k) }",
        None,
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,9000] x) => (float[1,k] y, int64[1,k] i) <int64[1] k = {4000}> { y, i = TopK(x, k) }",
        "error",
        "K is 4000, TensorRT takes at most 3840",
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,9000] x) => (float[1,k] y, int64[1,k] i) <int64[1] k = {3840}> { y, i = TopK(x, k) }",
        None,
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,90] x, int64[1] k) => (float[1,n] y, int64[1,n] i) { y, i = TopK(x, k) }",
        "warning",
        "K is computed",
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,9000] x) => (float[1,k] y, int64[1,k] i) <int64[1] k = {5}> { y, i = TopK <sorted = 0> (x, k) }",
        "error",
        "sorted=1 only",
    ),
    Example(
        "x86-cpu",
        "g (float[1,9000] x) => (float[1,k] y, int64[1,k] i) <int64[1] k = {4000}> { y, i = TopK(x, k) }",
        None,
    ),
)
