"""Scatters that add, which token merging is made of and TensorRT does not take.

TensorRT's operator table: ScatterND with a reduction is not imported. ScatterElements with one is since 10.0, through a
plugin for float32 and float16 that breaks fusion; TensorRT-RTX has no plugins, so it does not build there.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Finding, Graph, Target, error, warning

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
            yield warning(node, f"tensorrt runs ScatterElements with reduction={reduction!r} in a plugin: float32 and "
                          "float16 only, and nothing fuses across it", REWRITE)  # fmt: skip
