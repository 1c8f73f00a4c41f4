"""Scatters that add, which token merging is made of and TensorRT does not take.

TensorRT's operator table: ScatterND with a reduction is not imported. ScatterElements with one is since 10.0, through a
plugin for float32 and float16 that breaks fusion; TensorRT-RTX has no plugins, so it does not build there.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error, warning

REWRITE = "add rows by a one-hot matrix: Equal, Cast, MatMul"


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per operator and kind of reduction."""
    if not target.tensorrt:
        return
    offer = target.runtime
    for node in graph.nodes("ScatterElements", "ScatterND"):
        reduction = node.attributes.get_string("reduction", "none")
        if reduction == "none":
            continue
        if node.op_type == "ScatterND" or offer.name == "tensorrt-rtx" or not offer.at_least("10.0"):
            yield error(node, f"{offer.name} takes no {node.op_type} with reduction={reduction!r}", REWRITE)
        else:
            yield warning(
                node,
                f"tensorrt runs ScatterElements with reduction={reduction!r} in a plugin: float32 and "
                "float16 only, and nothing fuses across it",
                REWRITE,
            )


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float[9,4] x, int64[2,1] i, float[2,4] u) => (float[9,4] y) { y = ScatterND <reduction ="
        ' "add"> (x, i, u) }',
        "error",
        "ScatterND with reduction='add'",
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[9,4] x, int64[2,4] i, float[2,4] u) => (float[9,4] y) { y = ScatterElements <axis ="
        ' 0, reduction = "add"> (x, i, u) }',
        "warning",
        "in a plugin",
    ),
    Example(
        "rtx-4090",
        "g (float[9,4] x, int64[2,4] i, float[2,4] u) => (float[9,4] y) { y = ScatterElements <axis ="
        ' 0, reduction = "add"> (x, i, u) }',
        "error",
        "tensorrt-rtx takes no ScatterElements",
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[9,4] x, int64[2,1] i, float[2,4] u) => (float[9,4] y) { y = ScatterND <reduction ="
        ' "none"> (x, i, u) }',
        None,
    ),
    Example(
        "x86-cpu",
        "g (float[9,4] x, int64[2,1] i, float[2,4] u) => (float[9,4] y) { y = ScatterND <reduction ="
        ' "add"> (x, i, u) }',
        None,
    ),
)
