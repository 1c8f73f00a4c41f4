"""Attention nodes whose mask or widths a runtime refuses.

Measured with onnxruntime 1.23.2 and 1.32.0 on the CPU: a mask [b,1,1,n], [1,1,1,n] or [1,n] is refused when run, though
ONNX lets it broadcast over the queries; [n,n] and [b,1,n,n] run. TensorRT's documentation: a float mask has the type of
q, and the builder refuses k and v of unequal width.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error, static_dim


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """Findings for mask and widths."""
    import onnx_ir as ir

    for node in graph.nodes("Attention"):
        q, k, v, mask = (*node.inputs, None)[:4] if len(node.inputs) == 3 else node.inputs[:4]
        if target.ort_cpu and static_dim(mask, -2) == 1 and static_dim(q, -2) != 1:
            yield error(
                node,
                "onnxruntime refuses a mask that is to broadcast over the queries (its last but one axis is 1)",
                "Expand it to [b,1,n,n], or decompose into MatMul, Add, Softmax, MatMul",
            )
        if not target.tensorrt or q is None:
            continue
        if mask and mask.dtype and q.dtype and mask.dtype not in (q.dtype, ir.DataType.BOOL):
            yield error(
                node,
                f"the mask is {mask.dtype.name.lower()}, the queries {q.dtype.name.lower()}; TensorRT wants one type",
                "Cast the mask",
            )
        widths = static_dim(k, -1), static_dim(v, -1)
        if len(q.shape or ()) == 4 and None not in widths and widths[0] != widths[1]:
            yield error(
                node,
                f"k is {widths[0]} wide, v {widths[1]}; TensorRT wants one width",
                "pad v, or put log(size) into k",
            )


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (float[2,3,5,8] q, float[2,1,1,5] m) => (float[2,3,5,8] y) { y = Attention(q, q, q, m) }",
        "error",
        "refuses a mask that is to broadcast",
    ),
    Example(
        "x86-cpu",
        "g (float[2,3,5,8] q, float[1,5] m) => (float[2,3,5,8] y) { y = Attention(q, q, q, m) }",
        "error",
        "Expand it",
    ),
    Example(
        "x86-cpu", "g (float[2,3,5,8] q, float[2,1,5,5] m) => (float[2,3,5,8] y) { y = Attention(q, q, q, m) }", None
    ),
    Example("x86-cpu", "g (float[2,3,5,8] q, float[5,5] m) => (float[2,3,5,8] y) { y = Attention(q, q, q, m) }", None),
    Example(
        "rtx-4090", "g (float[2,3,5,8] q, float[2,1,1,5] m) => (float[2,3,5,8] y) { y = Attention(q, q, q, m) }", None
    ),
    Example(
        "jetson-orin-nano-jp72",
        "g (float16[2,3,5,8] q, float[5,5] m) => (float16[2,3,5,8] y) { y = Attention(q, q, q, m) }",
        "error",
        "Cast the mask",
    ),
    Example(
        "jetson-orin-nano-jp72",
        "g (float16[2,3,5,8] q, float16[2,3,5,9] v) => (float16[2,3,5,9] y) { y = Attention(q, q, v) }",
        "error",
        "k is 8 wide, v 9",
    ),
)
