"""LUT: a table of levels learnt from the weights, by k-means weighted with how much each weight matters.

SqueezeLLM: Dense-and-Sparse Quantization, Kim et al., ICML 2024, https://arxiv.org/abs/2306.07629, section 4.1.

Their weights are squared gradients of a loss; here they are the root mean square of what feeds each input channel in
the samples, which needs no loss and no gradients, and without samples all count the same. Theirs is a table for each
output (`per=output`). The default is one table for the whole matrix and a scale for each group: the weight of the
largest magnitude with its sign, which so becomes 1, and no level is spent on -1. Outliers are not kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks, _kmeans
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight


@dataclass(frozen=True)
class Config:
    """Options of lut.

    Attributes:
        bits: of a code.
        group: how many weights share a scale; 0: all of an output. Unused with a table for each output.
        per: "tensor" or "output", which has a table.
        scale: "fp16" or "fp32".
    """

    bits: int = 4
    group: int = 64
    per: str = "tensor"
    scale: str = "fp16"

    def __post_init__(self) -> None:
        _blocks.check_choice("bits", self.bits, (2, 3, 4))
        _blocks.check_block("group", self.group)
        _blocks.check_choice("per", self.per, ("tensor", "output"))
        _blocks.check_choice("scale", self.scale, _blocks.SCALES)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Learn a matrix's levels (N, K)."""
    outputs, inputs = matrix.shape
    whole = config.per == "output"
    block = _blocks.length(0 if whole else config.group, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    if whole:
        scales, unit = np.ones((outputs, 1), np.float16), 1.0
    else:
        scales, unit = _blocks.stored(_blocks.largest(blocks), config.scale)
    wide = scales.astype(np.float32) * np.float32(unit)
    values = _blocks.rows(_blocks.in_units(blocks, _blocks.none_is_one(wide)), inputs)
    matters = np.square(np.repeat(wide, block, axis=1)[:, :inputs], dtype=np.float64)
    matters *= _blocks.importance(activations, inputs)
    sets = (outputs, inputs) if whole else (1, outputs * inputs)
    levels = _kmeans.centres(values.reshape(sets), matters.reshape(sets), 2**config.bits).astype(np.float32)
    codes = _blocks.beyond(values, _blocks.midpoints(levels)[:, None])
    return Weight(codes, config.bits, levels[:, None], scales[..., None], block, unit)


QUANTISER = Quantiser(
    summary="2, 3 or 4 bits: a table of levels learnt from the weights and what feeds them, groups of 64",
    paper="SqueezeLLM, https://arxiv.org/abs/2306.07629, section 4.1",
    examples=("lut", "lut:bits=3", "lut:bits=2,group=32", "lut:bits=3,per=output"),
    config=Config,
    quantise=quantise,
    samples="used",
)
