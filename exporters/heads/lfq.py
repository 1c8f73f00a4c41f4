"""lfq: the signs of the channels are the bits of the id, and no codebook is looked up.

Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (MAGVIT-v2), https://arxiv.org/abs/2310.05737,
section 3.1. Published code: vector-quantize-pytorch 1.32.0 (MIT), LFQ; Open-MAGVIT2 (TencentARC/SEED-Voken).

A channel above 0 is `scale`, any other is -scale: 0 counts as negative (ONNX's Sign would give 0). Which channel is the
highest bit is a matter of the code: the first in vector-quantize-pytorch, the last in Open-MAGVIT2. A tokenizer that
reads its own ids back does not notice the difference, a model that was trained on them does.

What differs: nothing. Codebooks of 2^53 are possible, because none is held; beyond that a token has several ids.
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
    """Options of lfq.

    Attributes:
        bits: of an id.
        codebooks: ids of a token; a vector has bits * codebooks channels.
        scale: what a decoded channel is, with its sign.
        highest_first: whether the first channel is the highest bit, as in vector-quantize-pytorch, or the lowest.
    """

    bits: int = 18
    codebooks: int = 1
    scale: float = 1.0
    highest_first: bool = True

    def __post_init__(self) -> None:
        _check.within("bits", self.bits, 1, _ids.BITS)
        _check.at_least("codebooks", self.codebooks)

    @property
    def values(self) -> np.ndarray:
        """(bits,) what each channel of a codebook is worth."""
        return _ids.place_values(self.bits, self.highest_first)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N), or (B, N, codebooks)."""
    return _ids.from_signs(op, x, config.codebooks, config.values)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N), or (B, N, codebooks) -> x (B, N, D)."""
    return _ids.to_signs(op, ids, config.codebooks, config.values, config.scale)


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _ids.reference_from_signs(x, config.codebooks, config.values)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _ids.reference_to_signs(ids, config.codebooks, config.values, config.scale)


HEAD = Head(
    summary="the signs of the channels as the bits of an id",
    paper="MAGVIT-v2, https://arxiv.org/abs/2310.05737, section 3.1",
    config=Config,
    examples=(
        Config(bits=12),
        Config(bits=6, codebooks=3),
        Config(bits=10, scale=0.5, highest_first=False),
        Config(),
        Config(bits=53),
    ),
    layout=lambda config: Layout(config.bits * config.codebooks, (2**config.bits,) * config.codebooks),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
