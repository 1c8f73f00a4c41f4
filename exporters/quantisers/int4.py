"""INT4: sixteen equal steps around zero, with a scale for each block of weights. With an offset as well it is `q4-1`.

The rounding of ONNX Runtime's MatMulNBits (docs/ContribOperators.md; MIT): the weight of the largest magnitude in a
block is -8 steps, so that the scale is negative where that weight is positive and no code is spent on a level that
nothing needs.

`positive=true` is for a runtime that takes positive scales only, such as TensorRT: max|w| / 7. Its squared error is a
quarter larger (2.31e-5 against 1.82e-5 on normal weights in blocks of 32), which is why it is not the default. With
max|w| / 8 it would be 2.11e-5, but that clips the largest weights, and the outputs of a vision transformer's query
projection are 7.2 % off in place of 5.3 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks, _integer
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight


@dataclass(frozen=True)
class Config:
    """Options of int4.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
        scale: "fp32" or "fp16".
        positive: whether scales must be.
    """

    block: int = 32
    scale: str = "fp32"
    positive: bool = False

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)
        _blocks.check_choice("scale", self.scale, _blocks.SCALES)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to 4-bit integers."""
    return _integer.symmetric(matrix, 4, config.block, config.positive, config.scale)


QUANTISER = Quantiser(
    summary="4-bit integers, blocks of 32: 5 bits; with fp16 scales 4.5",
    paper="ONNX Runtime's MatMulNBits, docs/ContribOperators.md",
    examples=("int4", "int4:scale=fp16", "int4:block=0,positive=true"),
    config=Config,
    quantise=quantise,
)
