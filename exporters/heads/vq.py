"""vq: the nearest row of one learnt codebook, by euclidean distance or by cosine.

Neural Discrete Representation Learning (VQ-VAE), https://arxiv.org/abs/1711.00937, section 3.1. Cosine:
Vector-quantized Image Modeling with Improved VQGAN, https://arxiv.org/abs/2110.04627, section 3.2. Published code:
vector-quantize-pytorch 1.32.0 (MIT), VectorQuantize; TiTok's VectorQuantizer (bytedance/1d-tokenizer).

What differs: vector-quantize-pytorch clamps squared distances at 1e-8, so that all codes within 1e-4 of a vector are
equally near; here the nearest of them is taken. It expects the rows of a cosine codebook at length one; here they are
brought to it, as TiTok does. The decoded vector is the row itself, where TiTok's code gives x + (row - x), which
rounds. A vector's length does not change which row has the largest cosine, so the graph does not normalise x.

Large codebooks are searched in blocks: plugins/nearest_code.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgetok.errors import UsageError
from edgetok.exporters.heads import _check, _nearest
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of vq.

    Attributes:
        codes: rows of the codebook.
        width: channels of a vector.
        metric: by what a row is the nearest. With "cosine" rows are normalised, and so is what is decoded.
    """

    codes: int = 1024
    width: int = 64
    metric: Literal["euclidean", "cosine"] = "euclidean"

    def __post_init__(self) -> None:
        _check.at_least("codes", self.codes)
        _check.at_least("width", self.width)
        if self.metric not in ("euclidean", "cosine"):
            raise UsageError(f"metric={self.metric!r}: accepted are 'euclidean' and 'cosine'")


def _codebook(parameters: Parameters, config: Config) -> np.ndarray:
    rows = parameters["codebook"]
    return _nearest.unit(rows) if config.metric == "cosine" else rows


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N)."""
    codebook = _codebook(parameters, config)
    bias = _nearest.euclidean(codebook) if config.metric == "euclidean" else np.zeros(config.codes)
    return _nearest.nearest(op, x, codebook, bias)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N) -> x (B, N, D)."""
    return _nearest.rows(op, ids, _codebook(parameters, config))


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    from torch.nn.functional import normalize

    codebook = parameters["codebook"].to(x.dtype)
    if config.metric == "cosine":
        return (normalize(x, dim=-1) @ normalize(codebook, dim=-1).mT).argmax(dim=-1)
    return _nearest.reference(x, codebook)


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    from torch.nn.functional import normalize

    rows = parameters["codebook"][ids]
    return normalize(rows, dim=-1) if config.metric == "cosine" else rows


HEAD = Head(
    summary="the nearest row of one codebook, by distance or cosine",
    paper="VQ-VAE, https://arxiv.org/abs/1711.00937, section 3.1",
    config=Config,
    examples=(
        Config(codes=128, width=16),
        Config(codes=128, width=16, metric="cosine"),
        Config(codes=10000, width=8),
        Config(codes=8192, width=8, metric="cosine"),
        Config(codes=1, width=3),
    ),
    layout=lambda config: Layout(config.width, (config.codes,)),
    parameters=lambda config: {"codebook": (config.codes, config.width)},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
