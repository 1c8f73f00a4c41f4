"""LLM-FP4: the best of three 4-bit floats for a matrix, with a real-valued exponent bias for each output.

LLM-FP4: 4-Bit Floating-Point Quantized Transformers, Liu et al., EMNLP 2023, https://arxiv.org/abs/2310.16836, on the
weights' side; the published code is nbasyl/LLM-FP4 (MIT, quant_layers/fp_linear.py). A bias b is a scale 2^-b, and it
says where a row is clipped. Of E2M1, E1M2 and E3M0 the whole matrix takes the one with the least squared error of its
outputs on the samples; without samples it is the error of the weights.

The published search multiplies the bias by 0.01 to 1.2: what that does to the clipping depends on how large the weights
are, and for a bias near 0 it searches nothing. Ours adds to the bias, from a quarter below the one that clips nothing
to 1.6 above, in eighths and then, for the format that won, in 32nds. Activations are not rounded while searching, and
there is no second round, which only their formats need. The published code's last clip lets E2M1 reach 8; here it ends
at 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

SIZES = {
    "E2M1": np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32),
    "E1M2": np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], np.float32),
    "E3M0": np.array([0, 1, 2, 4, 8, 16, 32, 64], np.float32),
}
COARSE = np.arange(-2, 14) / 8
FINE = np.arange(-2, 3) / 32


@dataclass(frozen=True)
class Config:
    """LLM-FP4 has no options."""


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Choose a format for a matrix (N, K) and a scale for each output."""
    gram = None if activations is None else _gram(activations)
    unit = _blocks.none_is_one(np.abs(matrix).max(axis=1))  # (N,)
    rows = matrix / unit[:, None]
    coarse = np.repeat(COARSE[:, None], len(matrix), axis=1)
    found = {name: _best(rows, sizes, gram, coarse) for name, sizes in SIZES.items()}
    name = min(found, key=lambda name: float(found[name][1] @ np.square(unit, dtype=np.float64)))
    sizes = SIZES[name]
    shift, _ = _best(rows, sizes, gram, found[name][0] + FINE[:, None])
    scales = _blocks.none_is_one(unit * _scales(sizes, shift))
    levels = np.concatenate([sizes, -sizes])
    levels[8] = 0  # minus zero: no weight has it
    block = _blocks.length(0, matrix.shape[1])
    return Weight(_codes(matrix, sizes, scales), 4, levels[None, None], scales[:, None, None], block)


def _gram(activations: Activations) -> np.ndarray:
    """(K, K) of the samples: what an error e of a row does to its output is e gram e; silent channels count too."""
    rows = activations.rows.astype(np.float32)
    gram = rows.T @ rows / np.float32(len(rows))
    np.fill_diagonal(gram, gram.diagonal() + (_blocks.FLOOR * gram.diagonal().mean() or 1))
    return gram


def _best(
    rows: np.ndarray, sizes: np.ndarray, gram: np.ndarray | None, trials: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of trials (T, N), what is added to each output's bias (N,), and the error that it has then."""
    errors = np.stack([_error(rows, sizes, gram, shift) for shift in trials])
    best = errors.argmin(axis=0)[None]
    return np.take_along_axis(trials, best, axis=0)[0], np.take_along_axis(errors, best, axis=0)[0]


def _error(rows: np.ndarray, sizes: np.ndarray, gram: np.ndarray | None, shift: np.ndarray) -> np.ndarray:
    """(N,) squared, of the outputs on the samples, or without them of the weights; rows have 1 as their largest."""
    scales = _scales(sizes, shift)
    codes = _codes(rows, sizes, scales)
    lost = np.where(codes > 7, -scales[:, None], scales[:, None]) * sizes[codes & 7] - rows
    error: np.ndarray = np.einsum("nk,nk->n", lost, lost if gram is None else lost @ gram)
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
