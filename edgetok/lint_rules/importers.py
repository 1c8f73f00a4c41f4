"""Operators that TensorRT's parser does not import, or not yet in that version.

Since when: onnx-tensorrt's changelog (STFT 10.5, windows 10.4, 4-bit floats 10.8, Attention 10.14, RotaryEmbedding,
RMSNormalization and TensorScatter 10.15). Never: the operator table of TensorRT 10.1, less what came later.
TensorRT-RTX 1.7.1: measured with its own supports_operator() for all operators of onnx 1.23.
"""

from collections.abc import Iterator

from edgetok.device import RuntimeOffer
from edgetok.lint_rules import Example, Finding, Graph, Target, error

SINCE = {
    "Attention": ("10.14", "decompose it into MatMul, Softmax, MatMul, with the scale on q"),
    "RotaryEmbedding": ("10.15", "decompose it into Slice, Mul, Sub, Add, Concat"),
    "RMSNormalization": ("10.15", "decompose it into Mul, ReduceMean, Add, Sqrt, Div, Mul"),
    "TensorScatter": ("10.15", "use ScatterND without reduction"),
    "STFT": ("10.5", "compute the spectrogram before the model"),
    "BlackmanWindow": ("10.4", "fold the window into a constant"),
    "HammingWindow": ("10.4", "fold the window into a constant"),
    "HannWindow": ("10.4", "fold the window into a constant"),
}
NEVER = {
    "AffineGrid",
    "Bernoulli",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "CenterCropPad",
    "Compress",
    "ConcatFromSequence",
    "ConvInteger",
    "DFT",
    "Det",
    "DynamicQuantizeLinear",
    "ImageDecoder",
    "MatMulInteger",
    "MaxRoiPool",
    "MaxUnpool",
    "MelWeightMatrix",
    "Multinomial",
    "NegativeLogLikelihoodLoss",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "QLinearConv",
    "QLinearMatMul",
    "RegexFullMatch",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SoftmaxCrossEntropyLoss",
    "SplitToSequence",
    "StringConcat",
    "StringNormalizer",
    "StringSplit",
    "TfIdfVectorizer",
    "Unique",
}
NEVER_RTX = NEVER | {"BitCast", "Col2Im", "CumProd", "DeformConv", "SwiGLU"}
QUANTISED = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per operator."""
    if not target.tensorrt:
        return
    offer = target.runtime
    for node in graph.nodes():
        if node.domain:
            continue
        if node.op_type in (NEVER_RTX if offer.name == "tensorrt-rtx" else NEVER):
            yield error(
                node,
                f"{offer.name} {offer.version} does not import {node.op_type}",
                "quantise with QuantizeLinear and DequantizeLinear"
                if node.op_type in QUANTISED
                else "write it with other operators, or move it out of the model",
            )
        elif not imports(offer, node.op_type):
            since, rewrite = SINCE[node.op_type]
            yield error(node, f"tensorrt {offer.version} does not import {node.op_type}: it came with {since}", rewrite)


def imports(offer: RuntimeOffer, op_type: str) -> bool:
    """Whether a TensorRT is new enough for an operator that came with one of its versions."""
    return offer.name != "tensorrt" or op_type not in SINCE or offer.at_least(SINCE[op_type][0])


EXAMPLES = (
    Example(
        "jetson-orin-nano-jp62",
        "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }",
        "error",
        "came with 10.14",
    ),
    Example("jetson-orin-nano-jp72", "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }", None),
    Example("rtx-4090", "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }", None),
    Example(
        "jetson-orin-nano-jp72", "g (float[9] x) => (float[n] y) { y = Unique(x) }", "error", "does not import Unique"
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (uint8[2,4] a, uint8[4,2] b) => (int32[2,2] y) { y = MatMulInteger(a, b) }",
        "error",
        "QuantizeLinear and DequantizeLinear",
    ),
    Example("x86-cpu", "g (float16[2,3,5,8] q) => (float16[2,3,5,8] y) { y = Attention(q, q, q) }", None),
)
