"""INT8: 256 equal steps, with a scale for each output, or for each block of weights.

The rounding of ONNX Runtime's MatMulNBits with 8 bits (docs/ContribOperators.md; MIT): the weight of the largest
magnitude is -128 steps, and the scale takes its sign. `positive=true` is for a runtime that takes positive scales only,
such as TensorRT: max|w| / 127. With 8 bits that costs next to nothing: a squared error of 7.06e-8 against 6.97e-8 on
normal weights in blocks of 32, and 8.40e-8 against 8.43e-8 on heavy-tailed ones.

There is no minimum beside the scale, as int4 has it: no runtime multiplies by such weights of 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks, _integer
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight


@dataclass(frozen=True)
class Config:
    """Options of int8.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
        positive: whether scales must be.
    """

    block: int = 0
    positive: bool = False

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to 8-bit integers."""
    return _integer.symmetric(matrix, 8, config.block, config.positive)


QUANTISER = Quantiser(
    summary="8-bit integers with a scale for each output",
    paper="ONNX Runtime's MatMulNBits, docs/ContribOperators.md",
    examples=("int8", "int8:block=32", "int8:positive=true"),
    config=Config,
    quantise=quantise,
)
