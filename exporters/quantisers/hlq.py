"""HLQ: a weight is a sum of scaled bits and an offset, and the scales need not be powers of two.

ELUTQ: Optimizing Quantization Accuracy under LUT-Based Computation for Edge LLMs, https://arxiv.org/abs/2510.19482,
hierarchical linear quantisation; the published code is Nkniexin/ELUTQ (Apache-2.0, GPTQ/quant.py). For each group of
weights of an output

    w = s_0 b_0 + s_1 b_1 + ... + z,    b_p in {0, 1}

starts as asymmetric rounding to nearest, s_p = 2^p (max - min) / (2^bits - 1) and z = min, and then in turn each weight
takes the nearest of the 2^bits sums, and s and z are fitted by least squares: their alternating optimisation, ten
rounds. Their second form, by Adam, and their GPTQ around it are not here.

Ours: least squares weighted with the root mean square of what feeds each input channel, where there are samples; normal
equations from the sums of each code's weights, regularised by 1e-9 where they take a pseudo-inverse; and a last
assignment after s and z were rounded to fp16. A group of 128 takes bits + 16 (bits + 1) / 128 bits a weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetok.exporters.quantisers import _blocks
from edgetok.lowbit.quantiser import Activations, Quantiser
from edgetok.lowbit.weight import Weight

ROUNDS = 10
RIDGE = 1e-9  # of the largest possible entry: where a bit is never set its scale becomes 0


@dataclass(frozen=True)
class Config:
    """Options of hlq.

    Attributes:
        bits: of a code.
        group: how many weights share scales and offset; 0: all of an output.
        scale: "fp16" or "fp32".
    """

    bits: int = 4
    group: int = 128
    scale: str = "fp16"

    def __post_init__(self) -> None:
        _blocks.check_choice("bits", self.bits, (2, 3, 4))
        _blocks.check_block("group", self.group)
        _blocks.check_choice("scale", self.scale, _blocks.SCALES)


def quantise(matrix: np.ndarray, activations: Activations | None, config: Config) -> Weight:
    """Fit sums of scaled bits to a matrix (N, K)."""
    outputs, inputs = matrix.shape
    block = _blocks.length(config.group, inputs)
    groups = _blocks.filled(matrix, block)  # (N, G, block)
    matters = np.pad(_blocks.importance(activations, inputs), (0, -inputs % block))  # what fills up counts for nothing
    matters = np.tile(matters.reshape(-1, block), (outputs, 1))  # (N G, block)
    bits = _bits(config.bits)
    planes = _fitted(groups.reshape(-1, block), matters, bits).reshape(outputs, -1, len(bits))
    scales, unit = _blocks.stored(planes, config.scale)
    weight = scales.astype(np.float32) * np.float32(unit)
    codes = _nearest(groups.reshape(-1, block), weight.reshape(-1, len(bits)) @ bits)
    return Weight(_blocks.rows(codes.reshape(groups.shape), inputs), config.bits, bits[None], scales, block, unit)


def _bits(count: int) -> np.ndarray:
    """(count + 1, 2^count): the bits of each code, the lowest first, and ones for the offset."""
    codes = np.arange(2**count)
    return np.stack([*(codes >> place & 1 for place in range(count)), np.ones_like(codes)]).astype(np.float32)


def _fitted(groups: np.ndarray, matters: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """(M, block) weights and what they matter -> (M, bits + 1) scales and offset."""
    low = groups.min(axis=1, keepdims=True).astype(np.float64)
    span = groups.max(axis=1, keepdims=True) - low
    count = len(bits) - 1
    planes = np.concatenate([2.0 ** np.arange(count) * span / (2**count - 1), low], axis=1)
    for _ in range(ROUNDS):
        planes = _least_squares(groups, matters, _nearest(groups, (planes @ bits).astype(np.float32)), bits)
    return planes


def _nearest(groups: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """(M, block) weights, (M, 2^bits) sums -> (M, block) codes, the first of equally near ones."""
    best = np.abs(groups - sums[:, :1])
    codes = np.zeros(groups.shape, np.uint8)
    for code in range(1, sums.shape[1]):
        distance = np.abs(groups - sums[:, code : code + 1])
        codes[distance < best] = code
        best = np.minimum(best, distance)
    return codes


def _least_squares(groups: np.ndarray, matters: np.ndarray, codes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The planes (M, P) that bring the codes' sums nearest to the weights."""
    planes, levels = bits.shape
    place = codes + levels * np.arange(len(codes))[:, None]
    mass, moment = (
        np.bincount(place.ravel(), what.ravel(), levels * len(codes)).reshape(-1, levels)
        for what in (matters, matters * groups)
    )
    products = bits[:, None] * bits  # (P, P, levels)
    normal = (mass @ products.reshape(planes * planes, levels).T).reshape(-1, planes, planes)
    normal += RIDGE * mass.sum(axis=1)[:, None, None] * np.eye(planes)
    fitted: np.ndarray = np.linalg.solve(normal, (moment @ bits.T)[..., None])[..., 0]
    return fitted


QUANTISER = Quantiser(
    summary="2, 3 or 4 bits with a fitted scale each and an offset, groups of 128: 2.4, 3.5 or 4.6 bits",
    paper="ELUTQ, https://arxiv.org/abs/2510.19482, hierarchical linear quantisation",
    examples=("hlq", "hlq:bits=3", "hlq:bits=2", "hlq:bits=2,group=32"),
    config=Config,
    quantise=quantise,
    samples="used",
)
