"""Attention of which nothing but the shape is asked.

Measured with TensorRT-RTX 1.7.1 for SM86: it does not build, of 3 axes or of 4; one whose result nobody reads does, and
so does one whose result is read as well.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    if target.runtime.name != "tensorrt-rtx":
        return
    for node in graph.nodes("Attention"):
        users = {use.node.op_type for use in node.outputs[0].uses()}
        if users and users <= {"Shape", "Size"} and not node.outputs[0].is_graph_output():
            yield error(
                node, "nothing but its shape is asked, which tensorrt-rtx 1.7 does not build", "take the queries' shape"
            )


_HEAD = "g (float16[2,3,5,16] q, float16[2,3,5,16] k) => (int64[4] s, float16[2,3,5,16] y)"
EXAMPLES = (
    Example("rtx-4090", f"{_HEAD} {{ z = Attention(q, k, k) s = Shape(z) y = Relu(q) }}", "error", "its shape"),
    Example("rtx-4090", f"{_HEAD} {{ z = Attention(q, k, k) s = Shape(z) y = Relu(z) }}", None),
    Example("x86-cpu", f"{_HEAD} {{ z = Attention(q, k, k) s = Shape(z) y = Relu(q) }}", None),
)
