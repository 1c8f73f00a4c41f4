"""LLM-FP4: the best of three 4-bit floats for a matrix, with a real-valued exponent bias for each output.

LLM-FP4: 4-Bit Floating-Point Quantized Transformers, Liu et al., EMNLP 2023, https://arxiv.org/abs/2310.16836, on the
weights' side; the published code is nbasyl/LLM-FP4 (MIT, quant_layers/fp_linear.py). A bias b is a scale 2^-b, and it
says where a row is clipped. Of E2M1, E1M2 and E3M0 the whole matrix takes the one with the least squared error of its
outputs on the samples; without samples it is the error of the weights.

The published search multiplies the bias by 0.01 to 1.2: what that does to the clipping depends on how large the weights
are, and for a bias near 0 it searches nothing. Ours adds to the bias, from a quarter below the one that clips nothing
to 1.6 above, in eighths and then, for the format that won, in 32nds. There is no second round. The published code's
last clip lets E2M1 reach 8; here it ends at 6. Its activations are `--activations llm-fp4` (edgetok/lowbit/float4.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.float4 import SIZES
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

COARSE = np.arange(-2, 14) / 8
FINE = np.arange(-2, 3) / 32


@dataclass(frozen=True)
class Config:
    """LLM-FP4 has no options."""


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Choose a format for a matrix (N, K) and a scale for each output."""
    target = None if activations is None else _target(activations)
    unit = _blocks.none_is_one(np.abs(matrix).max(axis=1))  # (N,)
    rows = matrix / unit[:, None]
    coarse = np.repeat(COARSE[:, None], len(matrix), axis=1)
    found = {name: _best(rows, sizes, target, coarse) for name, sizes in SIZES.items()}
    name = min(found, key=lambda name: float(found[name][1] @ np.square(unit, dtype=np.float64)))
    sizes = SIZES[name]
    shift, _ = _best(rows, sizes, target, found[name][0] + FINE[:, None])
    scales = _blocks.none_is_one(unit * _scales(sizes, shift))
    levels = np.concatenate([sizes, -sizes])
    levels[8] = 0  # minus zero: no weight has it
    block = _blocks.length(0, matrix.shape[1])
    return Weight(_codes(matrix, sizes, scales), 4, levels[None, None], scales[:, None, None], block)


def _target(activations: Activations) -> tuple[np.ndarray, np.ndarray]:
    """What an error e of a row w does to its output, but for a constant: e gram e + 2 e offset w, both (K, K).

    The output wanted is that of what was there before the rounding. Silent channels count too.
    """
    rows = activations.rows.astype(np.float32)
    gram = rows.T @ rows / np.float32(len(rows))
    before = rows if activations.before is None else activations.before
    offset = rows.T @ (rows - before) / np.float32(len(rows))
    np.fill_diagonal(gram, gram.diagonal() + (_blocks.FLOOR * gram.diagonal().mean() or 1))
    return gram, offset


def _best(
    rows: np.ndarray, sizes: np.ndarray, target: tuple[np.ndarray, np.ndarray] | None, trials: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of trials (T, N), what is added to each output's bias (N,), and the error that it has then."""
    errors = np.stack([_error(rows, sizes, target, shift) for shift in trials])
    best = errors.argmin(axis=0)[None]
    return np.take_along_axis(trials, best, axis=0)[0], np.take_along_axis(errors, best, axis=0)[0]


def _error(
    rows: np.ndarray, sizes: np.ndarray, target: tuple[np.ndarray, np.ndarray] | None, shift: np.ndarray
) -> np.ndarray:
    """(N,) squared, of the outputs on the samples, or without them of the weights; rows have 1 as their largest."""
    scales = _scales(sizes, shift)
    codes = _codes(rows, sizes, scales)
    lost = np.where(codes > 7, -scales[:, None], scales[:, None]) * sizes[codes & 7] - rows
    weighed = lost if target is None else lost @ target[0] + 2 * rows @ target[1].T
    error: np.ndarray = np.einsum("nk,nk->n", lost, weighed)
    return error


def _scales(sizes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(N,) fp32: what puts a weight of 1 at 2^shift times the largest size."""
    return (np.exp2(-shift) / sizes[-1]).astype(np.float32)


def _codes(matrix: np.ndarray, sizes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(N, K) uint8: the sign in bit 3, the place among the sizes below."""
    values = matrix / scales[:, None]
    place = _blocks.beyond(np.abs(values), _blocks.midpoints(sizes))
    return place | ((values < 0) & (place > 0)).astype(np.uint8) << 3


QUANTISER = Quantiser(
    summary="the best 4-bit float of three, with a searched scale for each output: 4 bits and a little",
    paper="LLM-FP4, https://arxiv.org/abs/2310.16836, on weights",
    examples=("llm-fp4",),
    config=Config,
    quantise=quantise,
    samples="used",
)
