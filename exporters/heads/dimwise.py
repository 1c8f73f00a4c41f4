"""dimwise: each channel of a continuous latent by itself, in buckets of equal probability.

Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation (TokenBridge),
https://arxiv.org/abs/2503.16430, the section on post-training quantisation. Published code: post_training_quantize of
YuqingWang1029/TokenBridge (MIT).

A unit normal cut off at 3 is divided into 2^bits cells of equal probability; a cell's value is its mean. A channel x is
brought from low..high to -3..3, and its id is that of the nearest value, which is not always the cell it lies in. The
published code scales the latent by 0.2325 before, which is the caller's affair here.

What differs: values are computed in fp64, but for the probabilities of the cells, which that code subtracts in fp32: at
8 bits that moves the outer values by 5e-5, and models were trained with them. Low and high are folded into the values,
so that the graph does not scale; and the nearest is found by `bits` comparisons, not by all distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _buckets, _check
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter

CUT = 3.0  # where the normal distribution ends


@dataclass(frozen=True)
class Config:
    """Options of dimwise.

    Attributes:
        bits: of an id.
        width: channels of a vector, each with an id of its own.
        low: where the values begin.
        high: where they end.
    """

    bits: int = 6
    width: int = 16
    low: float = -5.0
    high: float = 5.0

    def __post_init__(self) -> None:
        _check.within("bits", self.bits, 1, 12)
        _check.at_least("width", self.width, 2)
        _check.below(self.low, self.high)

    @property
    def normal_values(self) -> np.ndarray:
        """(2^bits,) within -3 to 3, ascending."""
        normal, count = NormalDist(), 2**self.bits
        edges = [-CUT, *(min(max(normal.inv_cdf(i / count), -CUT), CUT) for i in range(1, count)), CUT]
        density = np.array([normal.pdf(edge) for edge in edges])
        probability = np.diff(np.array([normal.cdf(edge) for edge in edges], np.float32))
        return -np.diff(density) / probability

    @property
    def values(self) -> np.ndarray:
        """(2^bits,) fp32: what each id is decoded as."""
        return ((self.normal_values + CUT) / (2 * CUT) * (self.high - self.low) + self.low).astype(np.float32)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N, D)."""
    return _buckets.nearest(op, x, config.values)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N, D) -> x (B, N, D)."""
    return _buckets.chosen(op, ids, config.values)


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch, with the published scaling."""
    scaled = (x - config.low) / (config.high - config.low) * 2 * CUT - CUT
    return _buckets.reference(scaled.clamp(-CUT, CUT), config.normal_values)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _buckets.reference_chosen(ids, config.values)


HEAD = Head(
    summary="each channel by itself, in buckets of equal probability",
    paper="TokenBridge, https://arxiv.org/abs/2503.16430, post-training quantisation",
    config=Config,
    examples=(Config(), Config(bits=4), Config(bits=8, low=-3.0, high=4.0), Config(bits=1, width=5)),
    layout=lambda config: Layout(config.width, (2**config.bits,) * config.width),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
