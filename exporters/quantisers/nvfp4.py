"""NVFP4: E2M1 in blocks of 16 with an E4M3 scale, and one fp32 scale for the whole matrix.

NVIDIA's format for Blackwell, as TensorRT's guide on explicit quantization and Model Optimizer (Apache-2.0,
torch/quantization/qtensor/nvfp4_tensor.py) have it; Pretraining Large Language Models with NVFP4,
https://arxiv.org/abs/2509.25149, section 2.

The global scale g puts the largest weight at 6 x 448, the largest E2M1 and E4M3; a block's scale is max|w| / (6 g)
rounded to E4M3, and a weight is rounded after it was divided by the scale that is stored. 4.5 bits a weight.

Model Optimizer's ONNX exporter divides by the scale before it was rounded (4 % of the codes differ, and the error is
5 % larger); here as in its PyTorch path. Where a block's scale underflows to 0 that path leaves codes without a
meaning; here they are 0, as is minus zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from edgetok.exporters.quantisers import _e2m1
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight, padded

BLOCK = 16
LARGEST_SCALE = 448.0  # of E4M3


@dataclass(frozen=True)
class Config:
    """NVFP4 has no options."""


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to NVFP4."""
    blocks = padded(matrix, BLOCK)  # (N, G, 16)
    outputs, groups, _ = blocks.shape
    global_scale = np.float32(np.abs(matrix).max(initial=0)) / np.float32(_e2m1.LARGEST * LARGEST_SCALE)
    if global_scale == 0:  # all zeros, or so small that nothing is left of it
        global_scale = np.float32(1)
    wanted = np.abs(blocks).max(axis=-1) / (np.float32(_e2m1.LARGEST) * global_scale)
    wanted = np.where(wanted == 0, np.float32(1), np.minimum(wanted, np.float32(LARGEST_SCALE)))
    scales = wanted.astype(ml_dtypes.float8_e4m3fn)  # (N, G)
    divisor = scales.astype(np.float32) * global_scale
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(divisor[..., None] > 0, blocks / divisor[..., None], np.float32(0))
    codes = _e2m1.encode(values).reshape(outputs, -1)[:, : matrix.shape[1]]
    return Weight(codes, 4, _e2m1.LEVELS[None, None], scales.reshape(outputs, groups, 1), BLOCK, float(global_scale))


QUANTISER = Quantiser(
    summary="E2M1, blocks of 16 with an E4M3 scale, one fp32 scale: 4.5 bits",
    paper="NVFP4, https://arxiv.org/abs/2509.25149, section 2",
    examples=("nvfp4",),
    config=Config,
    quantise=quantise,
)
