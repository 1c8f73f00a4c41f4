"""Inputs with a dynamic axis other than the batch.

Token reduction fixes the schedule per block, so the number of tokens must be fixed (measured: exporters then read N by
Shape); TensorRT plans for a range instead of one size.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, info, warning


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per input."""
    for value in graph.model.graph.inputs:
        if value.shape is None:
            continue
        free = [str(dim) for dim in value.shape[1:] if not isinstance(dim, int)]
        if free:
            say = warning if target.tensorrt else info
            yield say(
                None,
                f"input {value.name!r} has dynamic axes besides the batch: {', '.join(free)}",
                "export with --length N (text, audio) or --size HxW (images)",
            )


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float[batch,tokens,4] x) => (float[batch,tokens,4] y) { y = Relu(x) }",
        "warning",
        "besides the batch: tokens",
    ),
    Example(
        "x86-cpu", "g (float[batch,tokens,4] x) => (float[batch,tokens,4] y) { y = Relu(x) }", "info", "--length N"
    ),
    Example("x86-cpu", "g (float[batch,5,4] x) => (float[batch,5,4] y) { y = Relu(x) }", None),
)
