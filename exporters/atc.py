"""atc: cluster the tokens, the closest two clusters first, and merge each cluster into one token.

Agglomerative Token Clustering (ECCV 2024), https://arxiv.org/abs/2409.11923, section 3; published code: atc.py.

Every token begins as a cluster of its own, and the two closest clusters are united until as many are left as tokens
stay. The distance of two tokens is 1 - cosine of their keys, averaged over heads; that of two clusters the smallest
(`linkage=single`), the largest (complete) or the mean (average) over their pairs, in which every token of this block
counts once. A cluster becomes the mean of its tokens weighted by size, in the place of its first token; attention
counts a token as often as the tokens merged into it. The paper reduces in blocks 3, 6 and 9 of 12, where `ratio` of
0.9, 0.7, 0.5 or 0.25 of the tokens stay.

Where the published code differs: its clusters stand in the order of scikit-learn's labels; the prefix is the class
token alone. Padding, which it does not know, is one cluster before any other is made, and joins tokens last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import UnknownName
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site

LINKAGES = ("single", "complete", "average")


@dataclass(frozen=True)
class Config:
    """Options of atc.

    Attributes:
        linkage: how far two clusters are apart: by their closest tokens ("single"), their farthest ("complete"), or
            on average.
    """

    linkage: str = "average"

    def __post_init__(self) -> None:
        if self.linkage not in LINKAGES:
            raise UnknownName("linkage", self.linkage, LINKAGES)


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """A cluster's first token stays; the others are merged into it."""
    op, prefix, clusters = site.op, site.prefix, site.tokens - site.prefix - site.count
    padding = site.part(site.is_padding, prefix) if site.padded else np.zeros((1, 1), np.float32)
    label = op.AgglomerativeClusters(
        site.part(site.unit_metric, prefix), padding, domain="edgetok", count=clusters, linkage=config.linkage
    )  # (B, T)
    member = op.OneHot(label, np.array(clusters), np.array([0, 1], np.float32), axis=1)  # (B, clusters, T)
    first = op.ArgMax(member, axis=2, keepdims=0)
    goes = site.per_sample(np.ones(site.tokens - prefix, np.float32))
    goes = op.ScatterElements(goes, first, site.per_sample(np.zeros(clusters, np.float32)), axis=1)
    places = site.ranked(goes, site.tokens - prefix, ascending=True)  # equals keep their order
    destination = op.GatherElements(label, site.part(places, clusters), axis=1)
    order = op.Concat(site.per_sample(np.arange(prefix)), op.Add(places, np.array(prefix)), axis=1)
    return Selection(order, op.Add(destination, np.array(prefix)))


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    from edgetok.plugins.agglomerative_clusters import reference as cluster

    batch, tokens, _ = state.hidden.shape
    prefix, clusters = state.prefix, tokens - state.prefix - count
    unit = torch.nn.functional.normalize(state.keys.mean(dim=1)[:, prefix:], dim=-1)
    padding = (state.size[:, prefix:, 0] == 0).to(unit.dtype)
    label = cluster(unit, padding, clusters, config.linkage)  # (B, T)
    goes = (label[:, :, None] == label[:, None]).tril(-1).any(dim=2)  # whether an earlier token is in its cluster
    places = goes.long().argsort(dim=1, stable=True)
    destination = label.gather(1, places[:, clusters:]) + prefix
    order = torch.cat([torch.arange(prefix).expand(batch, -1), places + prefix], dim=1)
    return Selection(order, destination)


TECHNIQUE = Technique(
    summary="cluster the tokens, merge each cluster into one",
    paper="Agglomerative Token Clustering, https://arxiv.org/abs/2409.11923, section 3",
    examples=("atc:ratio=0.7,layers=1/3", "atc:r=4,linkage=single", "atc:ratio=0.25,layers=2,linkage=complete"),
    config=Config,
    select=select,
    reference=reference,
    at_most=1.0,
)
