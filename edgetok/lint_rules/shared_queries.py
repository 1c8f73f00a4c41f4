"""A tensor that several Attentions, or one of them twice, take as queries or keys.

Measured with TensorRT-RTX 1.7.1 for SM86: the builder crashes where one tensor stands in two of these places, of 3 axes
or of 4, in any float type, causal or not, also behind an Identity. A tensor that is values as well, or goes into a
MatMul, is built.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, error

if TYPE_CHECKING:
    import onnx_ir as ir


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    if target.runtime.name != "tensorrt-rtx":
        return
    for node in graph.nodes("Attention"):
        if shared(node):
            yield error(
                node,
                "one tensor is queries or keys twice, at which tensorrt-rtx 1.7 crashes",
                "decompose it into MatMul, Softmax, MatMul",
            )


def shared(node: "ir.Node") -> bool:
    """Whether the queries or the keys of an Attention stand in another such place too."""
    assert node.graph is not None
    nodes = [each for each in node.graph if each.op_type == "Attention" and not each.domain]
    places = [_behind_identity(value) for each in nodes for value in each.inputs[:2]]
    return any(sum(place is _behind_identity(value) for place in places) > 1 for value in node.inputs[:2])


def _behind_identity(value: "ir.Value | None") -> "ir.Value | None":
    while value is not None and (node := value.producer()) is not None and node.op_type == "Identity":
        value = node.inputs[0]
    return value


EXAMPLES = (
    Example(
        "rtx-4090",
        "g (float16[2,5,32] q) => (float16[2,5,32] y) {"
        " k = Identity(q) y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, q) }",
        "error",
        "queries or keys twice",
    ),
    Example(
        "rtx-4090",
        "g (float16[2,3,5,16] q, float16[2,3,5,16] p, float16[2,3,5,16] k) =>"
        " (float16[2,3,5,16] y, float16[2,3,5,16] z) { y = Attention(q, k, k) z = Attention(p, k, k) }",
        "error",
        "queries or keys twice",
    ),
    Example(
        "rtx-4090",
        "g (float16[2,3,5,16] q, float16[2,3,5,16] k) => (float16[2,3,5,16] y) { y = Attention(q, k, k) }",
        None,
    ),
    Example("x86-cpu", "g (float[2,3,5,16] q) => (float[2,3,5,16] y) { y = Attention(q, q, q) }", None),
)
