"""gq: the channels in groups, the signs of each being the bits of an id: group-wise look-up-free quantisation.

WeTok: Powerful Discrete Tokenization for High-Fidelity Visual Reconstruction, https://arxiv.org/abs/2508.05599,
the section on group-wise look-up-free quantisation. Published code: zhuangshaobin/WeTok (Apache-2.0), class GFQ of
src/WeTok/modules/vqvae/lookup_free_quantize.py.

Group g is channels g d to g d + d - 1. A channel above 0 is 1, any other -1; the first channel of a group is the lowest
bit, in spite of comments in the code that say the opposite. The published models have d = 8 and 4 groups, or 8 of them.
UniWeTok's 2^128 codes are 16 groups of 8 bits.

What differs: the ids are (B, N, groups), as that code's decode takes them, where its forward gives them in one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _check, _ids
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of gq.

    Attributes:
        groups: ids of a token.
        bits: of an id; a vector has groups * bits channels.
    """

    groups: int = 4
    bits: int = 8

    def __post_init__(self) -> None:
        _check.at_least("groups", self.groups)
        _check.within("bits", self.bits, 1, _ids.BITS)

    @property
    def values(self) -> np.ndarray:
        """(bits,) what each channel of a group is worth."""
        return _ids.place_values(self.bits, highest_first=False)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N, groups)."""
    return _ids.from_signs(op, x, config.groups, config.values)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N, groups) -> x (B, N, D)."""
    return _ids.to_signs(op, ids, config.groups, config.values)


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _ids.reference_from_signs(x, config.groups, config.values)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _ids.reference_to_signs(ids, config.groups, config.values)


HEAD = Head(
    summary="the channels in groups, the signs of each as the bits of an id",
    paper="WeTok, https://arxiv.org/abs/2508.05599, group-wise quantisation",
    config=Config,
    examples=(
        Config(),
        Config(groups=8),
        Config(groups=2, bits=16),
        Config(groups=16),
        Config(groups=1, bits=5),
    ),
    layout=lambda config: Layout(config.groups * config.bits, (2**config.bits,) * config.groups),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
