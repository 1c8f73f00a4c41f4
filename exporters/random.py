"""random: drop tokens at random, the same ones for every input. The baseline that a technique has to beat.

The random selection that token reduction is compared with: Which Tokens to Use? Investigating Token Reduction in
Vision Transformers (ICCV workshops 2023), https://arxiv.org/abs/2308.04657, section 3, and papers since.

Which tokens go is fixed by the seed and the block when the graph is made, so that nothing is computed at run time.
Where the output is restored, a dropped token takes the value of the nearest one that stayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config:
    """Options of the random baseline.

    Attributes:
        seed: another one drops other tokens.
    """

    seed: int = 0


def draw(tokens: int, prefix: int, count: int, block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that stay, in their order, followed by those that go; and the row that stands in for each of these."""
    free = np.random.default_rng([seed, block]).permutation(np.arange(prefix, tokens))
    gone, left = np.sort(free[:count]), np.sort(free[count:])
    stay = np.concatenate([np.arange(prefix), left])
    nearest = np.abs(gone[:, None] - stay[None, prefix:]).argmin(axis=1) + prefix
    return np.concatenate([stay, gone]), nearest


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Drop tokens at random."""
    order, nearest = draw(site.tokens, site.prefix, site.count, site.block, config.seed)
    return Selection(site.per_sample(order), site.per_sample(nearest), dropped=site.count, proportional=False)


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    batch, tokens, _ = state.hidden.shape
    rows = draw(tokens, state.prefix, count, state.block, config.seed)
    order, nearest = (torch.from_numpy(row).expand(batch, -1) for row in rows)
    return Selection(order, nearest, dropped=count, proportional=False)


TECHNIQUE = Technique(
    summary="drop tokens at random: the baseline to beat",
    paper="Which Tokens to Use?, https://arxiv.org/abs/2308.04657, section 3",
    examples=("random:r=4",),
    config=Config,
    select=select,
    reference=reference,
    kind="prune",
    at_most=1.0,
)
