"""Attention with very narrow heads.

Measured with TensorRT-RTX 1.7.1 for SM86 and SM120: a float16 Attention of 4 or 8 channels a head does not build; 12,
16, 24, 32, 48 and 64 channels do. One of 3 axes, without a mask and not causal, is no kernel of its own there, and
builds with any.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, error, static_dim

if TYPE_CHECKING:
    import onnx_ir as ir

NARROWEST = 9  # between the 8 that fail and the 12 that build


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    if target.runtime.name != "tensorrt-rtx":
        return
    for node in graph.nodes("Attention"):
        width = width_of(node)
        if width is not None and width < NARROWEST and is_kernel(node):
            yield error(
                node,
                f"heads of {width} channels, which tensorrt-rtx 1.7 does not build",
                "pad queries, keys and values with zeros to 16 channels, and keep the scale",
            )


def width_of(node: "ir.Node") -> int | None:
    """Channels of a head of an Attention; None where the graph does not say."""
    width = static_dim(node.inputs[0], -1)
    return None if width is None else width // node.attributes.get_int("q_num_heads", 1)


def is_kernel(node: "ir.Node") -> bool:
    """Whether TensorRT-RTX keeps an Attention as a kernel of its own, and does not write it out."""
    axes = next((len(value.shape) for value in node.inputs if value is not None and value.shape is not None), 4)
    masked = len(node.inputs) > 3 and node.inputs[3] is not None
    return axes == 4 or masked or bool(node.attributes.get_int("is_causal", 0))


EXAMPLES = (
    Example(
        "rtx-4090",
        "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }",
        "error",
        "heads of 8 channels",
    ),
    Example(
        "rtx-4090",
        "g (float16[2,5,24] q, float16[2,5,24] k) => (float16[2,5,24] y) {"
        " y = Attention <q_num_heads = 3, kv_num_heads = 3, is_causal = 1> (q, k, k) }",
        "error",
        "heads of 8 channels",
    ),
    Example(
        "rtx-4090",
        "g (float16[2,5,24] q, float16[2,5,24] k) => (float16[2,5,24] y) {"
        " y = Attention <q_num_heads = 3, kv_num_heads = 3> (q, k, k) }",
        None,
    ),
    Example("rtx-4090", "g (float16[2,3,5,16] q) => (float16[2,3,5,16] y) { y = Attention(q, q, q) }", None),
    Example("x86-cpu", "g (float[2,3,5,8] q) => (float[2,3,5,8] y) { y = Attention(q, q, q) }", None),
)
