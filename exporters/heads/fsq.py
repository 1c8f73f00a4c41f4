"""fsq: each of a few channels is rounded to a few levels, and the levels together are one id.

Finite Scalar Quantization: VQ-VAE Made Simple, https://arxiv.org/abs/2309.15505, section 3.1 and appendix A.1.
Published code: vector-quantize-pytorch 1.32.0 (MIT), FSQ; the same steps in FlexTok, XCodec2 and NeuCodec.

With h = floor(L / 2), a channel becomes n = round(tanh(z + shift) (L - 1) 1.001 / 2 - offset), half to even, which is
decoded as n / h: for L = 8 that is -1 to 0.75. `symmetric` is preserve_symmetry of that code: L values evenly from -1
to 1. The first channel is the least significant of an id.

What differs: FlexTok and XCodec2 cut an id computed in fp32 to an integer, which is one too low for some levels from 26
up (none of the published ones); here levels are integers before they are packed, in int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UsageError
from edgetok.exporters.heads import _check, _ids
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter

MARGIN = 1.001  # the outermost levels are reached by a finite z


@dataclass(frozen=True)
class Config:
    """Options of fsq.

    Attributes:
        levels: of each channel.
        symmetric: whether the decoded values lie evenly about 0; needed for two levels.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)
    symmetric: bool = False

    def __post_init__(self) -> None:
        _check.at_least("channels of levels", len(self.levels))
        for number in self.levels:
            _check.at_least("a number of levels", number, 2 if self.symmetric else 3)
        if prod(self.levels) > 2**_ids.BITS:
            raise UsageError(f"levels={self.levels}: {prod(self.levels)} ids; accepted are 2^{_ids.BITS} at most")

    @property
    def basis(self) -> np.ndarray:
        """(D,) what a level of each channel adds to the id."""
        return np.cumprod((1, *self.levels[:-1]), dtype=np.int64)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(D,) each: half the range of n, the offset of an even number of levels, and the shift it takes."""
        levels = np.array(self.levels)
        half, offset = (levels - 1) * MARGIN / 2, np.where(levels % 2, 0.0, 0.5)
        return half, offset, np.arctanh(offset / half)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N)."""
    levels = np.array(config.levels)[:, None]
    x = op.Transpose(x, perm=[0, 2, 1])  # (B, D, N): what belongs to a channel goes along the tokens
    if config.symmetric:
        half = ((levels - 1) / 2).astype(np.float32)
        level = op.Floor(op.Add(op.Mul(op.Tanh(x), half), half + np.float32(0.5)))
    else:
        half, offset, shift = (array.astype(np.float32)[:, None] for array in config.bounds)
        number = op.Round(op.Sub(op.Mul(op.Tanh(op.Add(x, shift)), half), offset))
        level = op.Add(number, (levels // 2).astype(np.float32))
    whole = _ids.within(op, op.Cast(level, to=7), levels)  # a cast of NaN may be any integer
    return op.ReduceSum(op.Mul(whole, config.basis[:, None]), np.array([1]), keepdims=0)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N) -> x (B, N, D)."""
    ids, levels = _ids.within(op, ids, prod(config.levels)), np.array(config.levels)[:, None]
    level = op.Mod(op.Div(op.Unsqueeze(ids, np.array([1])), config.basis[:, None]), levels)  # (B, D, N) as in `encode`
    middle = (levels - 1) / 2 if config.symmetric else levels // 2
    half = middle.astype(np.float32)
    return op.Transpose(op.Div(op.Sub(op.Cast(level, to=1), half), half), perm=[0, 2, 1])


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    levels = torch.tensor(config.levels)
    if config.symmetric:
        level = ((levels - 1) * (x.tanh() + 1) / 2 + 0.5).floor()
    else:
        half, offset, shift = (torch.from_numpy(array).to(x.dtype) for array in config.bounds)
        level = ((x + shift).tanh() * half - offset).round() + levels // 2
    return (level.long() * torch.from_numpy(config.basis)).sum(dim=-1)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    levels = torch.tensor(config.levels)
    level = ids[..., None] // torch.from_numpy(config.basis) % levels
    return level * 2 / (levels - 1) - 1 if config.symmetric else (level - levels // 2) / (levels // 2)


HEAD = Head(
    summary="each of a few channels rounded to a few levels",
    paper="Finite Scalar Quantization, https://arxiv.org/abs/2309.15505, section 3.1",
    config=Config,
    examples=(
        Config(),
        Config((8, 8, 8, 5, 5, 5)),
        Config((4,) * 8),
        Config((5, 5, 5, 5), symmetric=True),
        Config((2,) * 40, symmetric=True),
        Config((27,)),
    ),
    layout=lambda config: Layout(len(config.levels), (prod(config.levels),)),
    parameters=lambda config: {},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=False,
)
