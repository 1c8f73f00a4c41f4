"""Elu behind a convolution behind an LSTM.

Measured with TensorRT-RTX 1.7.1 for SM86, fp16 and fp32: the builder fails in a fusion of its own ("There are 2 inputs.
Expected 1") where an Elu reads what a convolution made of an LSTM's output, as in EnCodec's decoder. Elu between an
LSTM and the first convolution, or in front of the LSTM, builds; so does the same function written as Exp and Where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, error

if TYPE_CHECKING:
    import onnx_ir as ir


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per Elu."""
    if target.runtime.name != "tensorrt-rtx":
        return
    behind: set[ir.Value] = set()
    convolved: set[ir.Value] = set()
    for node in graph.nodes():
        read = {value for value in node.inputs if value is not None}
        if node.op_type == "Elu" and read & convolved:
            yield error(
                node,
                "reads what a convolution made of an LSTM's output, which tensorrt-rtx 1.7 does not build",
                "write it as Where(x > 0, x, Exp(x) - 1)",
            )
        if node.op_type == "LSTM" or read & behind:
            behind.update(node.outputs)
        if read & convolved or (node.op_type in ("Conv", "ConvTranspose") and read & behind):
            convolved.update(node.outputs)


LSTM = "l = LSTM <hidden_size = 8> (x, w, r) s = Squeeze(l, i) t = Transpose <perm = [1,2,0]> (s)"
WEIGHTS = "float[5,2,8] x, float[1,32,8] w, float[1,32,8] r, float[8,8,3] c, int64[1] i"

EXAMPLES = (
    Example(
        "rtx-4090",
        f"g ({WEIGHTS}) => (float[2,8,3] y) {{ {LSTM} u = Conv(t, c) y = Elu(u) }}",
        "error",
        "reads what a convolution made of an LSTM's output",
    ),
    Example("rtx-4090", f"g ({WEIGHTS}) => (float[2,8,3] y) {{ {LSTM} u = Elu(t) y = Conv(u, c) }}", None),
    Example(
        "x86-cpu",
        f"g ({WEIGHTS}) => (float[2,8,3] y) {{ {LSTM} u = Conv(t, c) y = Elu(u) }}",
        None,
    ),
)
