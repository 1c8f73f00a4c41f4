"""rvq: codebooks one behind the other, each for what the ones before left over.

SoundStream: An End-to-End Neural Audio Codec, https://arxiv.org/abs/2107.03312, section III-C. Published code:
vector-quantize-pytorch 1.32.0 (MIT), ResidualVQ; EnCodec (facebookresearch/encodec), quantization/core_vq.py.

What differs: ids are (B, N, L), as in vector-quantize-pytorch; EnCodec's code has (L, B, N), the models of transformers
(B, L, N). A level that is left out has the id -1 and adds nothing, as there, so that one decoder takes any number of
levels; an encoder with `keep` computes the first ones only. Projections around each codebook, which DAC has, are not
part of this head.
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
    """Options of rvq.

    Attributes:
        levels: how many codebooks there are.
        codes: rows of each.
        width: channels of a vector.
        keep: how many levels are used, the first ones; 0: all.
    """

    levels: int = 8
    codes: int = 1024
    width: int = 128
    keep: int = 0

    def __post_init__(self) -> None:
        for name in ("levels", "codes", "width"):
            _check.at_least(name, getattr(self, name))
        _check.within("keep", self.keep, 0, self.levels)

    @property
    def used(self) -> int:
        """How many levels are used."""
        return self.keep or self.levels


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N, L)."""
    ids: list[ir.Value] = []
    for codebook in parameters["codebooks"][: config.used]:
        ids.append(_nearest.nearest(op, x, codebook, _nearest.euclidean(codebook)))
        if len(ids) < config.used:
            x = op.Sub(x, op.Gather(codebook, ids[-1], axis=0))
    return _ids.joined(op, ids)


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N, L) -> x (B, N, D)."""
    codebooks = parameters["codebooks"][: config.used]
    tables = np.pad(codebooks, ((0, 0), (1, 0), (0, 0)))  # row 0 is nothing, for the id -1
    if config.used == 1:
        tables = tables[0]
    rows = _nearest.rows(op, ids, tables, lowest=-1)
    return op.ReduceSum(rows, np.array([2]), keepdims=0) if config.used > 1 else rows


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    import torch

    ids = []
    for codebook in parameters["codebooks"][: config.used].to(x.dtype):
        ids.append(_nearest.reference(x, codebook))
        x = x - codebook[ids[-1]]
    return torch.stack(ids, dim=-1) if len(ids) > 1 else ids[0]


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    levels = ids[..., None] if config.used == 1 else ids
    codebooks = parameters["codebooks"]
    parts = [codebooks[k][levels[..., k].clamp(min=0)] * (levels[..., k, None] >= 0) for k in range(config.used)]
    return sum(parts[1:], parts[0])


HEAD = Head(
    summary="codebooks one behind the other, each for what the ones before left over",
    paper="SoundStream, https://arxiv.org/abs/2107.03312, section III-C",
    config=Config,
    examples=(
        Config(levels=4, codes=64, width=16),
        Config(levels=4, codes=64, width=16, keep=2),
        Config(levels=3, codes=50, width=5, keep=1),
        Config(levels=2, codes=8192, width=4),
    ),
    layout=lambda config: Layout(config.width, (config.codes,) * config.used, skips=True),
    parameters=lambda config: {"codebooks": (config.levels, config.codes, config.width)},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=False,
)
