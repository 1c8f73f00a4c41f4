"""MXFP4: E2M1 in blocks of 32 with a power of two as the scale.

OCP Microscaling Formats (MX) v1.0,
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf, sections 5.2 and 6.3;
as microsoft/microxcaling (MIT, mx_ops.py, round="even") has it. 4.25 bits a weight.

The exponent of a block's scale is floor(log2 max|w|) - 2, so that max|w| is between 4 and 8 scales; what is beyond 6
becomes 6, which costs up to a quarter of the largest weights. Model Optimizer rounds the exponent up, which clips
nothing and is coarser; neither is better for all weights. `rule=search`, which is ours, takes for each block whichever
of the two exponents gives the smaller squared error; what it stores is MXFP4 all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from edgetok.exporters.quantisers import _blocks, _e2m1
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight, padded

BLOCK = 32
BIAS = 127  # of E8M0


@dataclass(frozen=True)
class Config:
    """Options of mxfp4.

    Attributes:
        rule: "floor", as specified, or "search".
    """

    rule: str = "floor"

    def __post_init__(self) -> None:
        _blocks.check_choice("rule", self.rule, ("floor", "search"))


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to MXFP4."""
    blocks = padded(matrix, BLOCK)  # (N, G, 32)
    largest = np.abs(blocks).max(axis=-1)
    exponents = np.where(largest > 0, np.frexp(largest)[1] - 3, -BIAS)  # frexp's are floor(log2) + 1
    exponents = np.maximum(exponents, -BIAS)
    codes, error = _rounded(blocks, exponents)
    if config.rule == "search":
        wider, wider_error = _rounded(blocks, exponents + 1)
        better = 4 * wider_error < error  # its unit is twice as large
        codes, exponents = np.where(better[..., None], wider, codes), exponents + better
    scales = (exponents + BIAS).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)
    return Weight(_blocks.rows(codes, matrix.shape[1]), 4, _e2m1.LEVELS[None, None], scales[..., None], BLOCK)


def _rounded(blocks: np.ndarray, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, G, 32) for scales 2^exponents (N, G), and each block's squared error in units of its scale."""
    values = np.ldexp(blocks, -exponents[..., None])
    codes = _e2m1.encode(values)
    return codes, np.square(_e2m1.LEVELS[codes] - values).sum(axis=-1)


QUANTISER = Quantiser(
    summary="E2M1, blocks of 32 with a power of two as the scale: 4.25 bits",
    paper="OCP Microscaling Formats v1.0, sections 5.2 and 6.3",
    examples=("mxfp4", "mxfp4:rule=search"),
    config=Config,
    quantise=quantise,
)
