"""bsq: the signs of a vector on the unit sphere, the corners of a cube in it being the codes.

Image and Video Tokenization with Binary Spherical Quantization, https://arxiv.org/abs/2406.07548, the section of that
name. Published code: bsq-vit (MIT), transcoder/models/quantizer/bsq.py; vector-quantize-pytorch 1.32.0 (MIT),
LFQ(spherical=True).

A channel above 0 is 1 / sqrt(D), any other -1 / sqrt(D), D being all channels. The first channel is the highest bit. As
the signs of a vector do not depend on its length, the graph does not normalise it; bsq-vit leaves that to the caller.

What differs: bsq-vit computes an id of all D bits in fp32, which is wrong beyond 24; here ids are int64, and more than
53 bits come in groups only, as its group indices do.
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
    """Options of bsq.

    Attributes:
        bits: channels of a vector.
        group: how many of them share an id; 0: all. bsq-vit's group indices have 9.
        unit: whether a decoded vector has length one, or channels of 1 and -1 (l2_norm of bsq-vit).
    """

    bits: int = 18
    group: int = 0
    unit: bool = True

    def __post_init__(self) -> None:
        _check.at_least("bits", self.bits)
        _check.divides("group", self.group or self.bits, "bits", self.bits)
        _check.within("bits of an id", self.group or self.bits, 1, _ids.BITS)

    @property
    def groups(self) -> int:
        """Ids of a token."""
        return self.bits // (self.group or self.bits)

    @property
    def values(self) -> np.ndarray:
        """What each channel of a group is worth."""
        return _ids.place_values(self.bits // self.groups, highest_first=True)

    @property
    def scale(self) -> float:
        """What a decoded channel is, with its sign."""
        return self.bits**-0.5 if self.unit else 1.0


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N), or (B, N, groups)."""
    return _ids.from_signs(op, x, config.groups, config.values)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N), or (B, N, groups) -> x (B, N, D)."""
    return _ids.to_signs(op, ids, config.groups, config.values, config.scale)


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch, from the unit sphere."""
    import torch

    return _ids.reference_from_signs(torch.nn.functional.normalize(x, dim=-1), config.groups, config.values)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _ids.reference_to_signs(ids, config.groups, config.values, config.scale)


HEAD = Head(
    summary="the signs of a vector on the unit sphere",
    paper="Binary Spherical Quantization, https://arxiv.org/abs/2406.07548, the section of that name",
    config=Config,
    examples=(Config(), Config(group=9), Config(bits=12), Config(bits=36, unit=False), Config(bits=128, group=8)),
    layout=lambda config: Layout(config.bits, (2 ** (config.bits // config.groups),) * config.groups),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
