"""RotaryEmbedding with one table for the whole batch, as PyTorch's exporter writes it.

Measured with onnxruntime 1.23.2 and 1.32.0 on the CPU: without position ids, cos and sin [1,n,d/2] are refused from
batch 2 on; tables of the batch's own size run.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error, static_dim


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for all such nodes."""
    if not target.ort_cpu:
        return
    for node in graph.nodes("RotaryEmbedding"):
        table, positions = node.inputs[1], node.inputs[3] if len(node.inputs) > 3 else None
        if positions is None and static_dim(table, 0) == 1 and static_dim(node.inputs[0], 0) != 1:
            yield error(
                node,
                "onnxruntime refuses cos and sin tables of batch 1 as soon as the batch is larger",
                "Expand the tables over the batch, or decompose into Slice, Mul, Sub, Add, Concat",
            )


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (float[batch,3,5,8] x, float[1,5,4] c) => (float[batch,3,5,8] y) { y = RotaryEmbedding(x, c, c) }",
        "error",
        "tables of batch 1",
    ),
    Example(
        "x86-cpu",
        "g (float[2,3,5,8] x, float[1,5,4] c) => (float[2,3,5,8] y) { y = RotaryEmbedding(x, c, c) }",
        "error",
        "Expand the tables",
    ),
    Example(
        "x86-cpu", "g (float[1,3,5,8] x, float[1,5,4] c) => (float[1,3,5,8] y) { y = RotaryEmbedding(x, c, c) }", None
    ),
    Example(
        "x86-cpu", "g (float[2,3,5,8] x, float[2,5,4] c) => (float[2,3,5,8] y) { y = RotaryEmbedding(x, c, c) }", None
    ),
    Example(
        "rtx-4090",
        "g (float[2,3,5,8] x, float[1,5,4] c) => (float[2,3,5,8] y) { y = RotaryEmbedding(x, c, c) }",
        None,
    ),
)
