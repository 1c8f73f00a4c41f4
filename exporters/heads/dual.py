"""dual: one id for two codebooks, of what a picture means and of how it looks.

TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation, https://arxiv.org/abs/2412.03069,
the section on the shared mapping. Published code: ByteVisionLab/TokenFlow (Apache-2.0), VectorQuantizer of
tokenflow/tokenizer/vq_model.py.

A vector is its semantic channels, then its pixel channels. Each half is brought to length one, and so are the rows of
both codebooks; the id is the row at which the sum of both squared distances is the smallest, both weighing the same. As
all lengths are one, that is the largest product of both halves with both rows, so the graph searches one codebook of
rows joined.

What differs: the decoded vector is the two rows, where that code adds x and subtracts it again. Its residual over
several scales is a matter of the model around this head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _check, _nearest
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of dual.

    Attributes:
        codes: rows of each codebook.
        semantic: channels of the first.
        pixel: channels of the second.
    """

    codes: int = 32768
    semantic: int = 32
    pixel: int = 8

    def __post_init__(self) -> None:
        for name in ("codes", "semantic", "pixel"):
            _check.at_least(name, getattr(self, name))


def _codebook(parameters: Parameters) -> np.ndarray:
    return np.concatenate([_nearest.unit(parameters[name]) for name in ("semantic", "pixel")], axis=1)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N)."""
    halves = op.Split(x, np.array([config.semantic, config.pixel]), axis=2, outputs=2)
    unit = [op.Div(half, op.Max(op.ReduceL2(half, np.array([2])), np.float32(1e-12))) for half in halves]
    return _nearest.nearest(op, op.Concat(*unit, axis=2), _codebook(parameters), np.zeros(config.codes))


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N) -> x (B, N, D)."""
    return _nearest.rows(op, ids, _codebook(parameters))


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch, by the sum of squared distances."""
    import torch
    from torch.nn.functional import normalize

    distance = torch.zeros(())
    for half, name in ((x[..., : config.semantic], "semantic"), (x[..., config.semantic :], "pixel")):
        rows = parameters[name].to(x.dtype)
        distance = distance + torch.cdist(normalize(half, dim=-1), normalize(rows, dim=-1)).square()
    return distance.argmin(dim=-1)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    rows = (torch.nn.functional.normalize(parameters[name], dim=-1)[ids] for name in ("semantic", "pixel"))
    return torch.cat(list(rows), dim=-1)


HEAD = Head(
    summary="one id for two codebooks, of meaning and of looks",
    paper="TokenFlow, https://arxiv.org/abs/2412.03069, shared mapping",
    config=Config,
    examples=(Config(codes=256), Config(codes=9000, semantic=5, pixel=3)),
    layout=lambda config: Layout(config.semantic + config.pixel, (config.codes,)),
    parameters=lambda config: {"semantic": (config.codes, config.semantic), "pixel": (config.codes, config.pixel)},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
