"""Shapes and control flow that depend on the data, on engines that want them fixed.

TensorRT imports NonZero, NonMaxSuppression, If and Loop with restrictions (its operator table); their output sizes are
known only at run time, which ends fusion and forbids CUDA graphs. TensorRT-RTX 1.7.1 claims NonZero and fails while
parsing it, and finds no runner for NonMaxSuppression (measured). On a processor this costs nothing, so nothing is said.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error, warning

REWRITE = {
    "NonZero": "take the indices from a constant, or TopK with a fixed K; fix the length of the attention mask",
    "NonMaxSuppression": "move it out of the model",
    "If": "export the branch that is needed",
    "Loop": "unroll it at export: a fixed number of steps",
    "Scan": "unroll it at export: a fixed number of steps",
}


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per operator."""
    if not target.tensorrt:
        return
    for node in graph.nodes(*REWRITE):
        if target.runtime.name == "tensorrt-rtx" and node.op_type in ("NonZero", "NonMaxSuppression"):
            yield error(node, f"tensorrt-rtx does not build {node.op_type}", REWRITE[node.op_type])
        else:
            yield warning(
                node,
                f"{node.op_type} makes shapes or flow depend on the data: no fusion across it, no CUDA graph",
                REWRITE[node.op_type],
            )


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float[9] x) => (int64[1,n] y) { y = NonZero(x) }",
        "warning",
        "NonZero makes shapes or flow depend on the data",
    ),
    Example(
        "rtx-4090",
        "g (float[9] x) => (int64[1,n] y) { y = NonZero(x) }",
        "error",
        "tensorrt-rtx does not build NonZero",
    ),
    Example("x86-cpu", "g (float[9] x) => (int64[1,n] y) { y = NonZero(x) }", None),
)
