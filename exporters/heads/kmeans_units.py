"""kmeans-units: the nearest of the centroids that k-means found among a speech model's features.

On Generative Spoken Language Modeling from Raw Audio, https://arxiv.org/abs/2102.01192, the section on
speech-to-unit models. A vector is a frame of one layer's features, such as HuBERT's (https://arxiv.org/abs/2106.07447);
which layer, and whether repeated units become one or are joined by byte pairs afterwards, is settled outside the graph.

What differs: units are also decoded, as their centroids; published systems have a vocoder that reads the units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetok.exporters.heads import _check, _nearest
from edgetok.tokenizer.head import Head, Layout, Parameters, Tensors

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.graph import Emitter


@dataclass(frozen=True)
class Config:
    """Options of kmeans-units.

    Attributes:
        units: how many centroids there are.
        width: features of a frame.
    """

    units: int = 500
    width: int = 768

    def __post_init__(self) -> None:
        _check.at_least("units", self.units)
        _check.at_least("width", self.width)


def encode(op: Emitter, x: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """x (B, N, D) -> ids (B, N)."""
    centroids = parameters["centroids"]
    return _nearest.nearest(op, x, centroids, _nearest.euclidean(centroids))


def decode(op: Emitter, ids: ir.Value, parameters: Parameters, config: Config) -> ir.Value:
    """ids (B, N) -> x (B, N, D)."""
    return _nearest.rows(op, ids, parameters["centroids"])


def reference_encode(x: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return _nearest.reference(x, parameters["centroids"].to(x.dtype))


def reference_decode(ids: torch.Tensor, parameters: Tensors, config: Config) -> torch.Tensor:
    """The same in PyTorch."""
    return parameters["centroids"][ids]


HEAD = Head(
    summary="the nearest of the centroids of a speech model's features",
    paper="Generative Spoken Language Modeling, https://arxiv.org/abs/2102.01192, speech-to-unit models",
    config=Config,
    examples=(Config(units=100, width=48), Config()),
    layout=lambda config: Layout(config.width, (config.units,)),
    parameters=lambda config: {"centroids": (config.units, config.width)},
    encode=encode,
    decode=decode,
    reference_encode=reference_encode,
    reference_decode=reference_decode,
    invertible=True,
)
