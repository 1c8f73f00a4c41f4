"""window: each token attends to its neighbours, and to a few first tokens that all attend to.

Longformer: The Long-Document Transformer, https://arxiv.org/abs/2004.05150, section 3.1: sliding window and global
attention. `streaming` is the same in a causal model, with sinks in place of global tokens.

A token sees the `size` nearest, half of them on each side, exact to the token; in a causal model the last `size`, with
itself. The first `global` tokens, and the prefix if that is longer, are seen by all. Outside of causal models they
also see all, and so do the others in their block of queries. Nothing is computed to choose.

What differs: the published models have queries, keys and values of their own for global tokens, which a trained model
without them has not; neither is a dilated window there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.attention import Attention, AttentionState, Lists, check_block, check_range
from edgetok.graph import constant

if TYPE_CHECKING:
    import torch

    from edgetok.view.sparse import AttentionSite


@dataclass(frozen=True)
class Config:
    """Options of window.

    Attributes:
        size: how many tokens a token sees around itself.
        global: how many first tokens all see; the prefix always is.
        block: tokens of a block: 16, 32, 64 or 128.
    """

    size: int = 256
    global_: int = 0
    block: int = 64

    def __post_init__(self) -> None:
        check_block(self.block)
        check_range(self, "size", 1, 2**24)
        check_range(self, "global_", 0, 2**24)

    def reach(self, causal: bool) -> int:
        """The largest distance that is seen."""
        return self.size - 1 if causal else self.size // 2


def lists(site: AttentionSite, config: Config) -> Lists:
    """The blocks that a window touches, and those of the first tokens: the same for all inputs."""
    block, blocks, reach = config.block, site.blocks(config.block), config.reach(site.causal)
    pinned = max(config.global_, site.prefix)
    first = -(-min(pinned, site.tokens) // block)  # blocks with tokens that all see
    whole = 0 if site.causal else first
    rows = []
    for row in range(whole, blocks):
        low, high = row * block - reach, min((row + 1) * block - 1 + (0 if site.causal else reach), site.tokens - 1)
        window = range(max(low, 0) // block, high // block + 1)
        rows.append(sorted({*window, *range(min(first, row + 1) if site.causal else first)}))
    index = np.full((1, 1, len(rows), max(map(len, rows), default=1)), -1, np.int32)
    for row, listed in enumerate(rows):
        index[0, 0, row, : len(listed)] = listed
    count = (index >= 0).sum(axis=-1).astype(np.int32)
    pairs = blocks * (blocks + 1) // 2 if site.causal else blocks**2
    density = (int(count.sum()) + whole * blocks) / pairs
    graph = site.op.graph
    return Lists(constant(graph, index), constant(graph, count), whole, reach, pinned, density)


def reference(state: AttentionState, config: Config) -> torch.Tensor:
    """Who sees whom, by distance and place."""
    import torch

    tokens = state.keys.shape[2]
    place = torch.arange(tokens)
    pinned = max(config.global_, state.prefix)
    whole = 0 if state.causal else -(-pinned // config.block) * config.block
    near = (place - place[:, None]).abs() <= config.reach(state.causal)
    return (near | (place < pinned) | (place[:, None] < whole))[None, None]


ATTENTION = Attention(
    summary="each token sees its neighbours and the first tokens",
    paper="Longformer, https://arxiv.org/abs/2004.05150, section 3.1",
    examples=("window:size=24,global=1,block=16", "window:size=9,block=16"),
    config=Config,
    lists=lists,
    reference=reference,
    by_place=True,
)
