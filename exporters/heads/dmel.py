"""dmel: the bands of a log mel spectrogram, each rounded to a few evenly spaced values; nothing is learnt.

dMel: Speech Tokenization Made Simple, https://arxiv.org/abs/2407.15835, the section on tokenisation. Published code:
apple/dmel, dmel/dmel.py, discretize_func and inv_discretize.

The values are low + i step, with the step, (high - low) / (2^bits - 1), rounded to four digits, as in that code: with 3
bits the last value is 1.9999, not 2. A vector is a frame, log10 of its mel energies; this head is the rounding, not the
spectrogram in front of it.

What differs: that code gives frames of the value 3 the id of padding and has two ids for beginning and end, which are
matters of the language model behind; its inverse of the id for the end reads beyond its table. Here ids are of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _buckets, _check
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of dmel.

    Attributes:
        bits: of an id.
        bands: mel bands of a frame, each with an id of its own.
        low: the smallest value.
        high: the largest.
    """

    bits: int = 4
    bands: int = 80
    low: float = -7.0
    high: float = 2.0

    def __post_init__(self) -> None:
        _check.within("bits", self.bits, 1, 12)
        _check.at_least("bands", self.bands, 2)
        _check.below(self.low, self.high)

    @property
    def values(self) -> np.ndarray:
        """(2^bits,) fp32: what each id is decoded as."""
        count = 2**self.bits
        step = round((self.high - self.low) / (count - 1), 4)
        return (self.low + np.arange(count) * step).astype(np.float32)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, frames, bands) -> ids (B, frames, bands)."""
    return _buckets.nearest(op, x, config.values)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, frames, bands) -> x (B, frames, bands)."""
    return _buckets.chosen(op, ids, config.values)


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _buckets.reference(x.clamp(config.low, config.high), config.values)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _buckets.reference_chosen(ids, config.values)


HEAD = Head(
    summary="the bands of a log mel spectrogram, rounded to evenly spaced values",
    paper="dMel, https://arxiv.org/abs/2407.15835, speech tokenisation",
    config=Config,
    examples=(Config(), Config(bits=3), Config(bits=8, bands=13)),
    layout=lambda config: Layout(config.bands, (2**config.bits,) * config.bands),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
