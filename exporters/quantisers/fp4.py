"""FP4: E2M1 with a scale for each block of weights, or for each output.

The 4-bit float of the OCP Microscaling Formats specification v1.0,
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf, section 5.3.3, which is ONNX's
FLOAT4E2M1. The scale is free instead of a power of two (`mxfp4`) or an E4M3 (`nvfp4`): max|w| / 6, in fp32 or fp16.

Weights are rounded to nearest, ties to the even code, after they were divided by the scale that is stored. FP4 in
bitsandbytes is another format, with other levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks, _e2m1
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight


@dataclass(frozen=True)
class Config:
    """Options of fp4.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
        scale: "fp32" or "fp16".
    """

    block: int = 32
    scale: str = "fp32"

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)
        _blocks.check_choice("scale", self.scale, _blocks.SCALES)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to E2M1."""
    inputs = matrix.shape[1]
    block = _blocks.length(config.block, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    scales, unit = _blocks.stored(np.abs(blocks).max(axis=-1) / np.float32(_e2m1.LARGEST), config.scale)
    scales = _blocks.none_is_one(scales)
    codes = _e2m1.encode(blocks / (scales.astype(np.float32) * np.float32(unit))[..., None])
    return Weight(_blocks.rows(codes, inputs), 4, _e2m1.LEVELS[None, None], scales[..., None], block, unit)


QUANTISER = Quantiser(
    summary="E2M1 with a scale for each block of 32, or for each output: 5 bits, 4.5 with fp16 scales",
    paper="OCP Microscaling Formats v1.0, section 5.3.3, for E2M1",
    examples=("fp4", "fp4:scale=fp16", "fp4:block=0"),
    config=Config,
    quantise=quantise,
)
