"""NF4: sixteen levels at the quantiles of a normal distribution, with the largest weight of each block as the scale.

QLoRA: Efficient Finetuning of Quantized LLMs, Dettmers et al., NeurIPS 2023, https://arxiv.org/abs/2305.14314,
section 3; levels and thresholds as in bitsandbytes (MIT, csrc/kernels.cu): a weight is multiplied by the reciprocal of
its block's largest, and its code is the number of thresholds, midpoints in fp32, that it is strictly beyond.

bitsandbytes' blocks run over the flattened matrix and cross rows where K is no multiple of 64; ours end with the row.
The scales stay in fp32, 4.5 bits a weight, and are not quantised a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
THRESHOLDS = (LEVELS[1:] + LEVELS[:-1]) / 2


@dataclass(frozen=True)
class Config:
    """Options of nf4.

    Attributes:
        block: how many weights share a scale; 0: all of an output.
    """

    block: int = 64

    def __post_init__(self) -> None:
        _blocks.check_block("block", self.block)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Round a matrix (N, K) to NF4."""
    inputs = matrix.shape[1]
    block = _blocks.length(config.block, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    scales = _blocks.none_is_one(np.abs(blocks).max(axis=-1))
    codes = _blocks.beyond(_blocks.in_units(blocks, scales), THRESHOLDS)
    return Weight(_blocks.rows(codes, inputs), 4, LEVELS[None, None], scales[..., None], block)


QUANTISER = Quantiser(
    summary="sixteen levels at a normal distribution's quantiles, blocks of 64: 4.5 bits",
    paper="QLoRA, https://arxiv.org/abs/2305.14314, section 3",
    examples=("nf4", "nf4:block=32"),
    config=Config,
    quantise=quantise,
)
