"""float32 weights on a GPU.

TensorRT 11 and TensorRT-RTX take types from the graph alone. Measured with TensorRT-RTX 1.7.1: a float32 graph with an
Attention node does not build, float16 and bfloat16 do, and float32 does when Attention is decomposed, as the builder
itself does with some (narrow_heads.py). What float16 would bring is read from the device's profile.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error, warning
from edgetok.lint_rules.narrow_heads import is_kernel

PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for the model, and one for Attention."""
    import onnx_ir as ir

    if not target.tensorrt:
        return
    single = [n for n in graph.nodes(*PRODUCTS) if n.inputs[0] is not None and n.inputs[0].dtype == ir.DataType.FLOAT]
    fp32, fp16 = target.device.peak("fp32"), target.device.peak("fp16")
    if single and fp32 and fp16:
        yield warning(
            None,
            f"{len(single)} matrix products are float32, which this GPU computes at "
            f"{fp32 / 1e12:.1f} TFLOPS where float16 has {fp16 / 1e12:.1f}",
            "export with --dtype fp16 or bf16",
        )
    for node in single:
        if target.runtime.name == "tensorrt-rtx" and node.op_type == "Attention" and is_kernel(node):
            yield error(node, "tensorrt-rtx does not build a float32 Attention", "export with --dtype fp16 or bf16")


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float[4,4] x) => (float[4,4] y) { y = MatMul(x, x) }",
        "warning",
        "1.9 TFLOPS where float16 has 15.0",
    ),
    Example(
        "rtx-4090",
        "g (float[2,3,5,8] q) => (float[2,3,5,8] y) { y = Attention(q, q, q) }",
        "error",
        "tensorrt-rtx does not build a float32 Attention",
    ),
    Example("rtx-4090", "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }", None),
    Example("x86-cpu", "g (float[4,4] x) => (float[4,4] y) { y = MatMul(x, x) }", None),
)
