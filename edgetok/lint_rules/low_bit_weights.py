"""Weights of few bits that a device's TensorRT cannot hold packed.

FP4 from compute capability 10.0 on, INT4 and INT8 with positive scales and whole blocks: what TensorRT-RTX 1.7.1 builds
or refuses (measured). A weight in another file is not looked at.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, constant, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for each kind of obstacle."""
    if not target.tensorrt:
        return
    from edgetok.lowbit.node import read
    from edgetok.lowering import tensorrt_obstacle

    for node in graph.nodes():
        if (node.domain, node.op_type) != ("edgetok", "LutMatMul") or constant(node.inputs[1]) is None:
            continue
        if obstacle := tensorrt_obstacle(read(node), target.device):
            yield error(node, *obstacle)


def _graph(levels: str) -> str:
    """A product with a matrix (2, 8) of four bits, its codebook given."""
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> g (float[1,8] x) => (float[1,2] y) '
        "<uint8[2,4] codes = {16, 50, 84, 118, 16, 50, 84, 118}, float[2,1,1] scales = {1, 2}, "
        f"float[1,1,16] levels = {{{levels}}}> "
        "{ y = edgetok.LutMatMul <bits = 4, inner = 8> (x, codes, levels, scales) }"
    )


E2M1 = _graph("0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6")
EXAMPLES = (
    Example("jetson-orin-nano-jp62", E2M1, "error", "runs no fp4: it runs int4, int8"),
    Example("rtx-4090", _graph(", ".join(map(str, range(-8, 8)))), None),
    Example("rtx-4090", _graph(", ".join(str(x / 7) for x in range(16))), "error", "neither FP4 nor integers"),
    Example("x86-cpu", E2M1, None),
)
