"""FP8: E4M3, an 8-bit float with a scale for each output, or for each block of weights.

FP8 Formats for Deep Learning, Micikevicius et al., https://arxiv.org/abs/2209.05433, section 3; the type is ONNX's
FLOAT8E4M3FN (docs/docsgen/source/technical/float8.md): a sign, four bits of exponent with bias 7, three of mantissa,
448 the largest number, no infinity, and NaN where all other bits are ones. A scale is max|w| / 448, in fp32, as in
NVIDIA's Model Optimizer; a weight is divided by it and rounded to nearest, ties to even, at most 448.

A code is the byte, and its level the number that the byte stands for; the two bytes of NaN, 0x7F and 0xFF, are never
written, nor is that of minus zero. On the weights of zoo:dinov2-style-s14 the squared error is 8 times that of int8,
with as many bits: a float is for what spreads over magnitudes, as activations do, and for GPUs that multiply FP8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.e4m3 import LARGEST, LEVELS, cast
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

MINUS_ZERO = 0x80


@dataclass(frozen=True)
class Config:
    """Options of fp8.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
    """

    block: int = 0

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to E4M3."""
    inputs = matrix.shape[1]
    block = _blocks.length(config.block, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    scales = _blocks.none_is_one(np.abs(blocks).max(axis=-1) / np.float32(LARGEST))
    codes = encode(blocks / scales[..., None])
    return Weight(_blocks.rows(codes, inputs), 8, LEVELS[None, None], scales[..., None], block)


def encode(values: np.ndarray) -> np.ndarray:
    """fp32 -> uint8 codes; minus zero is zero."""
    codes = cast(values).view(np.uint8)
    return np.where(codes == MINUS_ZERO, np.uint8(0), codes)


QUANTISER = Quantiser(
    summary="E4M3, an 8-bit float with a scale for each output",
    paper="FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433, section 3",
    examples=("fp8", "fp8:block=32"),
    config=Config,
    quantise=quantise,
)
