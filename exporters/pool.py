"""pool: behind the encoder average the tokens over squares of their grid.

Matryoshka Multimodal Models (M3, ICLR 2025), https://arxiv.org/abs/2405.17430, section 3; published code:
matryoshka_vis_token_process, which averages over kernel = stride = sqrt(576 / s) for s = 1, 9, 36, 144 or 576.
The paper trains the language model with all of these; a model that was not trained so loses more.

The patches are one square grid unless `rows` says how many rows it has; `rows=1` is for sound and text, which is
averaged along the row. Every cell has the grid's proportions, so of 576 patches a square number is left: `keep=0.25` is
144 of 576, `keep=0.0625` is 36. Where the side is no multiple of the cells' count, cells differ by one row or column
(the published code leaves the last ones out). Prefix tokens stay in front. Padding has no weight; a cell of
nothing else is zeros. A cell stands at the place of its first patch, the upper left one: `token_positions` says that.

Nothing is computed to choose, so the cells are constants. 576 x 1024 to 144 on one core: 1.5 ms by the product that
merges, 1.0 ms by AveragePool between two Transposes; not worth a second way.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from edgetok.errors import Refusal, UsageError
from edgetok.technique import Selection, State, Technique

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Config:
    """Options of pool.

    Attributes:
        rows: of the grid of patches; 0 for as many as columns.
    """

    rows: int = 0


def cells(free: int, left: int, config: Config) -> np.ndarray:
    """(free,): for each patch the number of its cell, of `left`, row by row.

    Raises:
        Refusal: the patches make no such grid.
        UsageError: no such count of cells has the grid's proportions.
    """
    rows = config.rows or isqrt(free)
    columns = free // rows if rows > 0 else 0
    if rows * columns != free or (not config.rows and rows != columns):
        raise Refusal(
            f"pool averages over a grid, and {free} tokens (prefix not counted) make none of "
            + (f"{config.rows} rows" if config.rows else "as many rows as columns"),
            way_out="give rows=, the grid's rows; 1 averages along the row, for sound and text",
        )
    sizes = {n: (1, n) for n in range(1, free + 1)} if rows == 1 else {}
    for down in range(1, rows + 1):
        if down * columns % rows == 0:
            sizes[down * down * columns // rows] = (down, down * columns // rows)
    if left not in sizes:
        accepted = ", ".join(map(str, sizes))
        raise UsageError(
            f"pool cannot leave {left} of {rows} x {columns} tokens: cells of the grid's proportions leave {accepted}; "
            f"give for example keep={min(sizes, key=lambda n: abs(n - left)) / free:.4g}"
        )
    down, across = sizes[left]
    return ((np.arange(rows) * down // rows)[:, None] * across + np.arange(columns) * across // columns).reshape(-1)


def pool(tokens: int, prefix: int, count: int, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The prefix, the first patch of each cell, and the others; and the row of the cell that each of these is in."""
    cell = cells(tokens - prefix, tokens - prefix - count, config)
    first = np.unique(cell, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(cell)), first)
    return np.concatenate([np.arange(prefix), prefix + first, prefix + others]), prefix + cell[others]


def select(site: Site, config: Config) -> Selection[ir.Value]:
    """Average each cell into its first patch."""
    if site.positions is not None:
        raise Refusal(
            "pool averages over the grid of patches, and tokens were reduced before: no grid is left",
            way_out="pool alone, or reduce behind the encoder by a technique that chooses, such as divprune",
        )
    order, row = pool(site.tokens, site.prefix, site.count, config)
    return Selection(site.per_sample(order), site.per_sample(row))


def reference(state: State, count: int, config: Config) -> Selection[torch.Tensor]:
    """The same in PyTorch."""
    import torch

    batch, tokens, _ = state.hidden.shape
    order, row = (torch.from_numpy(a).expand(batch, -1) for a in pool(tokens, state.prefix, count, config))
    return Selection(order, row)


TECHNIQUE = Technique(
    summary="average the tokens over squares of their grid",
    paper="Matryoshka Multimodal Models (M3), https://arxiv.org/abs/2405.17430, section 3",
    examples=("pool:keep=0.25", "pool:keep=0.3,rows=1"),
    config=Config,
    select=select,
    reference=reference,
    where="output",
    kind="pool",
)
