"""The 4-bit floats that LLM-FP4 chooses from, and activations rounded to the best of them.

LLM-FP4: 4-Bit Floating-Point Quantized Transformers, Liu et al., EMNLP 2023, https://arxiv.org/abs/2310.16836, section
4.2 (pre-shifted exponent bias); the published code is nbasyl/LLM-FP4 (MIT, quant_layers/fp_linear.py). A tensor has one
real-valued exponent bias, that is one step; each channel's is smaller by a whole number of powers of two, as many as
the format's exponent has, which the exponents of the weights can take. Of the three formats and the steps the pair is
taken that leaves the least squared error in the outputs of the layers which read the tensor.

The paper's channels go by their largest values; ours take the power with the least squared error of their own. The
published search multiplies the bias by 0.01 to 1.2, and near a bias of 0 searches nothing; its last clip lets E2M1
reach 8. Ours divides the step that clips nothing by 2^-1/4 to 2^1.6. The published code searches weights and
activations in turns, three times; here activations come first and the weights, knowing what they make of it, after.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZES = {
    "E2M1": np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32),
    "E1M2": np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], np.float32),
    "E3M0": np.array([0, 1, 2, 4, 8, 16, 32, 64], np.float32),
}
COARSE = np.arange(-2, 14) / 8  # powers of two by which the step is smaller than the one that clips nothing
FINE = np.arange(-3, 4) / 32


def fit(rows: np.ndarray, matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the format and the steps for a tensor.

    Args:
        rows: (S, K) fp32 on the samples.
        matrices: (N, K) fp32 of each layer that reads it.

    Returns:
        Steps (K,) fp32, and the format's sizes (8,).
    """
    weights = np.concatenate(matrices)
    gram = weights.T @ weights
    found = {name: _best(rows, gram, name, COARSE) for name in SIZES}
    name = min(found, key=lambda each: found[each][0])
    _, _, steps = _best(rows, gram, name, found[name][1] + FINE)
    return steps, SIZES[name]


def _best(
    rows: np.ndarray, gram: np.ndarray, name: str, trials: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Of trials the one with the least squared error in the outputs: that error, the trial, and its steps (K,)."""
    sizes, shifts = SIZES[name], np.arange(2 ** int(name[1]))  # as many as the exponent has values
    widest = (np.abs(rows).max(initial=0) or 1.0) / sizes[-1]

    def steps_of(trial: float) -> np.ndarray:
        choices = (widest * np.exp2(-trial - shifts)).astype(np.float32)
        lost = [np.square(rounded(rows, step, sizes) - rows).sum(axis=0) for step in choices]
        steps: np.ndarray = choices[np.argmin(lost, axis=0)]  # of each channel by itself
        return steps

    def error_of(steps: np.ndarray) -> float:
        lost = rounded(rows, steps, sizes) - rows
        return float(np.einsum("sk,sk->", lost @ gram, lost))

    found = [(trial, steps_of(trial)) for trial in trials]
    return min(((error_of(steps), trial, steps) for trial, steps in found), key=lambda each: each[0])


def rounded(rows: np.ndarray, steps: np.ndarray | np.float32, sizes: np.ndarray) -> np.ndarray:
    """Rows (S, K) to the nearest sizes in each channel's step, and back: `plugins/round_to_levels.py`."""
    places = np.searchsorted((sizes[:-1] + sizes[1:]) / 2, np.abs(rows) / steps)
    result: np.ndarray = np.sign(rows) * sizes[places] * steps
    return result
