"""product: the channels in equal groups, each with a codebook of its own.

Product Quantization for Nearest Neighbor Search, https://inria.hal.science/inria-00514462, section II-B; in speech as
wav2vec 2.0 has it, https://arxiv.org/abs/2006.11477, section 2. Published code: vector-quantize-pytorch 1.32.0 (MIT),
VectorQuantize with heads and separate_codebook_per_head, without its projections.

What differs: nothing. Ids are (B, N, groups), group g being channels g D / groups and on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.exporters.heads import _check, _ids, _nearest
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of product.

    Attributes:
        groups: of channels.
        codes: rows of each group's codebook.
        width: channels of a vector, all groups together.
    """

    groups: int = 2
    codes: int = 320
    width: int = 64

    def __post_init__(self) -> None:
        _check.at_least("codes", self.codes)
        _check.divides("groups", self.groups, "width", self.width)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N, G)."""
    if config.groups == 1:
        parts = (x,)
    else:
        parts = op.Split(x, axis=2, num_outputs=config.groups, outputs=config.groups)
    return _ids.joined(
        op,
        [
            _nearest.nearest(op, part, codebook, _nearest.euclidean(codebook))
            for part, codebook in zip(parts, parameters["codebooks"], strict=True)
        ],
    )


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N, G) -> x (B, N, D)."""
    if config.groups == 1:
        return _nearest.rows(op, ids, parameters["codebooks"][0])
    return op.Reshape(_nearest.rows(op, ids, parameters["codebooks"]), np.array([0, 0, config.width]))


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    codebooks = parameters["codebooks"].to(x.dtype)
    ids = [_nearest.reference(*pair) for pair in zip(x.chunk(config.groups, dim=-1), codebooks, strict=True)]
    return torch.stack(ids, dim=-1) if len(ids) > 1 else ids[0]


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    groups = ids[..., None] if config.groups == 1 else ids
    return torch.cat([rows[groups[..., g]] for g, rows in enumerate(parameters["codebooks"])], dim=-1)


HEAD = Head(
    summary="the channels in groups, each with a codebook of its own",
    paper="Product Quantization, https://inria.hal.science/inria-00514462, section II-B",
    config=Config,
    examples=(
        Config(groups=2, codes=32, width=16),
        Config(groups=5, codes=7, width=15),
        Config(groups=1, codes=9, width=4),
        Config(groups=2, codes=8200, width=8),
    ),
    layout=lambda config: Layout(config.width, (config.codes,) * config.groups),
    parameters=lambda config: {"codebooks": (config.groups, config.codes, config.width // config.groups)},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
