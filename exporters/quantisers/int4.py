"""INT4: sixteen equal steps, with a scale for each block of weights, and with `asymmetric=true` a minimum as well.

The rounding of ONNX Runtime's MatMulNBits (docs/ContribOperators.md; MIT): the weight of the largest magnitude in a
block is -8 steps, so that the scale is negative where that weight is positive and no code is spent on a level that
nothing needs. With `asymmetric=true` a weight is minimum + code x scale, the scale (max - min) / 15, both in fp16, as
in GGUF's Q4_1 (ggml-quants.c, MIT); but Q4_1 rounds its scale to fp16 after the codes were chosen, and here codes are
chosen with what is stored.

`positive=true` is for a runtime that takes positive scales only, such as TensorRT: max|w| / 7. Its squared error is a
quarter larger (2.31e-5 against 1.82e-5 on normal weights in blocks of 32), which is why it is not the default. With
max|w| / 8 it would be 2.11e-5, but that clips the largest weights, and the outputs of a vision transformer's query
projection are 7.2 % off in place of 5.3 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.errors import UsageError
from edgetok.exporters.quantisers import _blocks, _integer
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight


@dataclass(frozen=True)
class Config:
    """Options of int4.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
        scale: "fp32" or "fp16".
        asymmetric: whether a block has a minimum, in fp16 like its scale.
        positive: whether scales must be.
    """

    block: int = 32
    scale: str = "fp32"
    asymmetric: bool = False
    positive: bool = False

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)
        _blocks.check_choice("scale", self.scale, _blocks.SCALES)
        if self.asymmetric and (self.positive or self.scale != "fp32"):
            raise UsageError("option asymmetric=true: its scales are positive and fp16 as it is; leave out the other")


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to 4-bit integers."""
    if config.asymmetric:
        return _with_minimum(matrix, config.block)
    return _integer.symmetric(matrix, 4, config.block, config.positive, config.scale)


def _with_minimum(matrix: np.ndarray, block: int) -> Weight:
    """w = scale x code + minimum: two planes, the second all ones."""
    inputs = matrix.shape[1]
    block = _blocks.length(block, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    minimum = blocks.min(axis=-1)
    wanted = blocks.max(axis=-1) / np.float32(15) - minimum / np.float32(15)  # max - min may be beyond fp32
    planes, unit = _blocks.stored(np.stack([wanted, minimum], axis=-1), "fp16")
    planes[..., 0] = _blocks.none_is_one(planes[..., 0])
    wide = planes.astype(np.float32) * np.float32(unit)
    steps = (blocks - wide[..., 1:]) / wide[..., :1]
    codes = np.clip(np.floor(steps + np.float32(0.5)), 0, 15).astype(np.uint8)
    codebook = np.stack([np.arange(16, dtype=np.float32), np.ones(16, np.float32)])
    return Weight(_blocks.rows(codes, inputs), 4, codebook[None], planes, block, unit)


QUANTISER = Quantiser(
    summary="4-bit integers, blocks of 32: 5 bits; with fp16 scales 4.5, with a minimum as well 5",
    paper="ONNX Runtime's MatMulNBits, docs/ContribOperators.md; GGUF's Q4_1",
    examples=("int4", "int4:scale=fp16", "int4:asymmetric=true", "int4:block=0,positive=true"),
    config=Config,
    quantise=quantise,
)
