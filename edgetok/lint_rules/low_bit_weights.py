"""Weights of few bits that a device's TensorRT cannot hold packed.

FP4 from compute capability 10.0 on, FP8 from 8.9 on, INT4 and INT8 with positive scales, all in whole blocks: what
TensorRT-RTX 1.7.1 builds or refuses (measured). A weight in another file is not looked at.
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


def _graph(levels: str, bits: int = 4) -> str:
    """A product with a matrix (2, 8) of so many bits, its codebook given."""
    codes = ", ".join(map(str, [16, 50, 84, 118] * (bits // 2)))
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> g (float[1,8] x) => (float[1,2] y) '
        f"<uint8[2,{bits}] codes = {{{codes}}}, float[2,1,1] scales = {{1, 2}}, "
        f"float[1,1,{2**bits}] levels = {{{levels}}}> "
        f"{{ y = edgetok.LutMatMul <bits = {bits}, inner = 8> (x, codes, levels, scales) }}"
    )


def _e4m3(code: int) -> float:
    """What a byte stands for."""
    exponent, mantissa = code >> 3 & 15, code & 7
    size = (mantissa / 8 + (exponent > 0)) * 2.0 ** (max(exponent, 1) - 7)
    return float("nan") if code & 127 == 127 else -size if code >> 7 else size


E2M1 = _graph("0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6")
E4M3 = _graph(", ".join(str(_e4m3(code)) for code in range(256)), 8)
EXAMPLES = (
    Example("jetson-orin-nano-jp62", E2M1, "error", "has no fp4 weights: it has int4, int8"),
    Example("jetson-orin-nano-jp62", E4M3, "error", "has no fp8 weights: it has int4, int8"),
    Example("rtx-4090", E4M3, None),
    Example("rtx-4090", _graph(", ".join(map(str, range(-8, 8)))), None),
    Example("rtx-4090", _graph(", ".join(str(x / 7) for x in range(16))), "error", "has no 4-bit weights from a table"),
    Example("x86-cpu", E2M1, None),
)
