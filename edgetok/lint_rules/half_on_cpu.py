"""float16 graphs on an x86 processor: computed in float32 between casts.

Measured (onnxruntime 1.23.2 and 1.32.0, x86-64): MatMul, Add, Relu, Softmax and TopK of float16 run although the tables
onnxruntime-*.json hold no such kernel, because onnxruntime inserts casts. Arm builds have more float16 kernels than
these tables, so nothing is said of them.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, info
from edgetok.lint_rules.kernels import accepts, node_types, serves, table


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for the whole model."""
    if not target.ort_cpu or target.device.recognise.arch != "x86_64":
        return
    import onnx

    kernels, cast, half = table(target.runtime.version).get("ai.onnx", {}), set(), 0
    for node in graph.nodes():
        if node.domain == "" and onnx.defs.has(node.op_type):
            schema = onnx.defs.get_schema(node.op_type, graph.opset(node))
            found = node_types(node, schema)
            if "float16" in found.values():
                half += 1
                serving = [t for a, b, t in kernels.get(node.op_type, []) if serves(a, b, schema.since_version)]
                if serving and not any(accepts(types, found) for types in serving):
                    cast.add(node.op_type)
    if cast:
        yield info(
            None,
            f"{half} nodes are float16, and there are no float16 kernels on x86-64 for "
            f"{', '.join(sorted(cast))}: they run in float32 between casts",
            "use float32 on this processor; float16 is for GPUs",
        )


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (float16[4,4] x) => (float16[4,4] y) { z = MatMul(x, x) y = Relu(z) }",
        "info",
        "2 nodes are float16",
    ),
    Example("x86-cpu", "g (float[4,4] x) => (float[4,4] y) { y = MatMul(x, x) }", None),
    Example("cortex-a78ae", "g (float16[4,4] x) => (float16[4,4] y) { y = MatMul(x, x) }", None),
)
