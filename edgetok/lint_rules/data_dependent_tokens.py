"""A count of tokens that each input has for itself, on engines that plan sizes ahead.

TensorRT tunes kernels and plans memory for a range of input shapes (its guide, "Dynamic Shapes"). A size that follows
from values, cosines above a threshold, is in no such range: kernels are tuned for no size, and there is no CUDA graph.
Whether it builds such an engine was not tried. On a processor onnxruntime allocates as it goes, so nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok import graph as g
from edgetok.lint_rules import Example, Finding, Graph, Target, warning

if TYPE_CHECKING:
    import onnx_ir as ir

BOUNDS = {"Slice": (1, 2), "Expand": (1,), "OneHot": (1,), "Range": (0, 1, 2)}  # inputs that size the output


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for the graph: the first such node."""
    if not target.tensorrt:
        return
    for node in graph.nodes(*BOUNDS):
        if node.graph is not graph.model.graph:  # a function is sized by what it is given
            continue
        if any(_is_found(value) for place in BOUNDS[node.op_type] for value in node.inputs[place : place + 1]):
            yield warning(
                node,
                "the number of tokens depends on the data: no kernels tuned for its size, no CUDA graph",
                "export with one count for all inputs: leave dynamic=true out",
            )
            return


def _is_found(value: ir.Value | None) -> bool:
    """Whether a value is computed from more than shapes."""
    return value is not None and value.producer() is not None and not g.is_data_free(value)


COUNTED = (
    "g (float[1,n,4] x, float[1,9] s) => (float[1,k,4] y) <int64[1] zero = {0}, int64[1] one = {1}, float t = {0.5}> {"
    " above = Greater(s, t) ones = Cast<to = 7>(above) k = ReduceSum<keepdims = 0>(ones, one)"
    " y = Slice(x, zero, k, one) }"
)
EXAMPLES = (
    Example("jetson-orin-nano-jp62", COUNTED, "warning", "the number of tokens depends on the data"),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[1,n,4] x, float[1,m,4] s) => (float[1,m,4] y) <int64[1] zero = {0}, int64[1] one = {1}>"
        " { m = Shape<start = 1, end = 2>(s) y = Slice(x, zero, m, one) }",
        None,
    ),
    Example("x86-cpu", COUNTED, None),
)
