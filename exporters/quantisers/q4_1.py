"""Q4_1, one of llama.cpp's formats: integers from 0 to 15 in blocks of 32, with a scale and an offset in fp16.

ggml's quantize_row_q4_1_ref (MIT, ggml-quants.c): a block's least weight is code 0 and its largest is code 15.

    w = scale * code + offset,    scale = (max - min) / 15,    offset = min

Codes are found with the scale before it is rounded to fp16, as there. 5 bits a weight. A matrix whose largest weight is
above 65504 or below 2^-10, which fp16 scales would not hold, is measured in a power of two, the global scale.

A model that comes out of a GGUF file in Q4_1, as `zoo:smollm2` does, gets back the codes, scales and offsets of that
file, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

BLOCK = 32
LEVELS = np.stack([np.arange(16), np.ones(16)]).astype(np.float32)[None]  # (1, 2, 16): codes, and what is always there


@dataclass(frozen=True)
class Config:
    """Q4_1 has no options."""


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to Q4_1."""
    outputs, inputs = matrix.shape
    top = float(np.abs(matrix).max(initial=0))
    unit = 1.0 if 2.0**-10 <= top <= 65504 or top == 0 else 2.0 ** max(int(np.frexp(top)[1]), -126)
    matrix = matrix / np.float32(unit)
    blocks = np.pad(matrix, ((0, 0), (0, -inputs % BLOCK)), mode="edge").reshape(outputs, -1, BLOCK)  # (N, G, 32)
    least, largest = blocks.min(axis=-1, keepdims=True), blocks.max(axis=-1, keepdims=True)
    scale = (largest - least) / np.float32(15)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    codes = np.minimum((blocks - least) * inverse + np.float32(0.5), 15).astype(np.uint8)
    scales = np.concatenate([scale, least], axis=-1).astype(np.float16)
    return Weight(codes.reshape(outputs, -1)[:, :inputs], 4, LEVELS, scales, BLOCK, unit)


QUANTISER = Quantiser(
    summary="integers from 0 to 15, blocks of 32 with an fp16 scale and offset: 5 bits, as in GGUF files",
    paper="ggml's quantize_row_q4_1_ref, https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c",
    examples=("q4-1",),
    config=Config,
    quantise=quantise,
)
