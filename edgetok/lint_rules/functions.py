"""Model-local functions, which old parsers do not read.

TensorRT's parser reads them since 9.0 (onnx-tensorrt's changelog).
"""

from collections.abc import Iterator

from edgetok.lint_rules import Finding, Graph, Target, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per call of a local function."""
    if not target.below("tensorrt", "9.0"):
        return
    local = {(function.domain, function.name) for function in graph.model.functions.values()}
    for node in graph.nodes():
        if (node.domain, node.op_type) in local:
            yield error(
                node,
                f"tensorrt {target.runtime.version} reads no model-local functions: they came with 9.0",
                "inline them: onnx.inliner.inline_local_functions",
            )
