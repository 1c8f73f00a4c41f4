"""Scales of blocks: how long a block is, how a scale is stored, and what a weight is in units of its scale."""

from __future__ import annotations

import numpy as np

from edgetok.errors import UsageError
from edgetok.lowbit.quantiser import Activations

SCALES = ("fp32", "fp16")
FLOOR = 1e-6  # of the mean: a channel that is silent in the samples still counts for something


def check_block(key: str, block: int) -> None:
    """Make sure that an option is 0, for whole rows, or a size of blocks.

    Raises:
        UsageError: it is not.
    """
    if block < 0 or block % 8:
        raise UsageError(f"option {key}={block}: accepted are multiples of 8, and 0 for one scale per output")


def check_choice(key: str, value: object, accepted: tuple[object, ...]) -> None:
    """Make sure that an option is one of a few.

    Raises:
        UsageError: it is not.
    """
    if value not in accepted:
        *others, last = map(str, accepted)
        raise UsageError(f"option {key}={value}: accepted are {', '.join(others)} and {last}")


def length(block: int, inputs: int) -> int:
    """The weights of a block; 0 means a whole row, which is filled up to a multiple of 8."""
    return block or -(-inputs // 8) * 8


def filled(matrix: np.ndarray, block: int) -> np.ndarray:
    """(N, K) -> (N, G, block): the last block is filled up with its last weight, which moves no extreme."""
    outputs, inputs = matrix.shape
    return np.pad(matrix, ((0, 0), (0, -inputs % block)), mode="edge").reshape(outputs, -1, block)


def largest(blocks: np.ndarray) -> np.ndarray:
    """(N, G, block) -> (N, G): the weight of the largest magnitude, with its sign."""
    return np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)[..., 0]


def stored(scales: np.ndarray, dtype: str) -> tuple[np.ndarray, float]:
    """fp32 scales as they are stored, and the global scale.

    fp16 ends at 65504 and loses digits below 6e-5: a power of two, as the global scale, puts the largest scale between
    2^14 and 2^15.
    """
    if dtype == "fp32":
        return scales.astype(np.float32), 1.0
    exponent = int(np.frexp(np.abs(scales).max(initial=0))[1])
    unit = 2.0 ** max(exponent - 15, -126)
    return (scales / np.float32(unit)).astype(np.float16), unit


def none_is_one(scales: np.ndarray) -> np.ndarray:
    """A scale of 0, of zeros or of what underflowed, becomes 1, with which those weights round to 0."""
    return np.where(scales == 0, scales.dtype.type(1), scales)


def in_units(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Weights (N, G, block) times the reciprocals of scales (N, G), which is what published quantisers round."""
    with np.errstate(over="ignore", invalid="ignore"):
        reciprocal = 1 / scales
        values = blocks * reciprocal[..., None]
    overflown = np.isinf(reciprocal)  # a scale below 3e-39
    values[overflown] = blocks[overflown] / scales[overflown][..., None]
    return values


def beyond(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many thresholds each value is beyond, strictly: codes of ascending levels, uint8.

    Args:
        values: any shape.
        thresholds: ascending along the last axis; (T,), or (..., T) where the axes before fit the values.
    """
    codes = np.zeros(values.shape, np.uint8)
    for threshold in np.moveaxis(thresholds, -1, 0):
        codes += values > threshold
    return codes


def midpoints(levels: np.ndarray) -> np.ndarray:
    """(..., L) ascending -> (..., L - 1): beyond which a value is nearer to the next level."""
    return levels[..., :-1] + (levels[..., 1:] - levels[..., :-1]) / 2


def rows(codes: np.ndarray, inputs: int) -> np.ndarray:
    """(N, G, block) -> (N, K), without what filled up the last block."""
    return codes.reshape(len(codes), -1)[:, :inputs]


def importance(activations: Activations | None, inputs: int) -> np.ndarray:
    """(K,) fp64 with mean 1: how much the weights of each input channel count; all 1 without samples.

    It is the root mean square of what feeds them. The mean square itself, which is how much an error shows on the
    samples, lets the loudest channels decide alone: the outputs of a vision transformer's fc2 in 2 bits (hlq) are then
    25.1 % off on a photograph that is not among the samples, with the root 22.1 %, and 24.1 % without samples.
    """
    if activations is None or not activations.mean_square.any():
        return np.ones(inputs)
    loudness = np.sqrt(activations.mean_square)
    share = loudness / loudness.mean() + FLOOR
    return share / share.mean()
