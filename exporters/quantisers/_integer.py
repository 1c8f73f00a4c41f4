"""Integers with a scale: how a scale follows from a block, and how weights are rounded."""

from __future__ import annotations

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.weight import Weight


def symmetric(matrix: np.ndarray, bits: int, block: int, positive: bool, dtype: str = "fp32") -> Weight:
    """Round a matrix (N, K) to integers times a scale, without an offset.

    Args:
        matrix: the weights.
        bits: of an integer.
        block: how many weights share a scale; 0: all of an output.
        positive: whether scales must be: max|w| is 2^(bits-1) - 1 steps. Otherwise the weight of the largest magnitude
            is exactly -2^(bits-1) steps, and the scale takes its sign.
        dtype: of the scales.
    """
    inputs, half = matrix.shape[1], 2 ** (bits - 1)
    block = _blocks.length(block, inputs)
    blocks = _blocks.filled(matrix, block)  # (N, G, block)
    largest = _blocks.largest(blocks)
    wanted = np.abs(largest) / np.float32(half - 1) if positive else largest / np.float32(-half)
    scales, unit = _blocks.stored(wanted, dtype)
    scales = _blocks.none_is_one(scales)
    values = _blocks.in_units(blocks, scales.astype(np.float32) * np.float32(unit))
    codes = np.clip(np.floor(values + np.float32(half + 0.5)), 0, 2 * half - 1).astype(np.uint8)
    levels = np.arange(-half, half, dtype=np.float32)
    return Weight(_blocks.rows(codes, inputs), bits, levels[None, None], scales[..., None], block, unit)
