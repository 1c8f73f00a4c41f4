"""A photograph with what became of its tokens drawn over it.

As figures of token merging draw it: tokens that became one take the mean of their pixels, lines part the groups; what
was dropped is dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MOST_PREFIX = 16  # class token and registers
SIDE = 336  # pixels of a drawn picture
SHOWN = 4  # at most so many stages


@dataclass(frozen=True)
class TokenPicture:
    """One picture: as a data URI, and what is said below it."""

    source: str
    caption: str


def token_pictures(picture: Image.Image, rows: Mapping[int, np.ndarray]) -> tuple[TokenPicture, ...]:
    """The picture itself and its tokens behind some of the blocks, the last one among them.

    Args:
        picture: what the model sees, square.
        rows: by block, (N,): the row each original token is in, -1 where it is gone; from `token_trace.compose`.

    Returns:
        Nothing where the tokens are no square grid behind a short prefix.
    """
    if not rows or picture.width != picture.height:
        return ()
    tokens = len(next(iter(rows.values())))
    grid = isqrt(tokens)
    if tokens - grid**2 > MOST_PREFIX:
        return ()
    blocks = sorted(rows)
    shown = sorted({blocks[(i + 1) * len(blocks) // SHOWN - 1] for i in range(SHOWN) if (i + 1) * len(blocks) >= SHOWN})
    small = picture.resize((SIDE, SIDE))
    made = [TokenPicture(_uri(small), f"what the model sees: {grid} x {grid} tokens")]
    for block in shown:
        own = rows[block][tokens - grid**2 :].reshape(grid, grid)
        left = len(set(own[own >= 0].tolist()))
        made.append(TokenPicture(_uri(_drawn(small, own)), f"behind block {block}: {left} left"))
    return tuple(made)


def _drawn(picture: Image.Image, rows: np.ndarray) -> Image.Image:
    import numpy as np
    from PIL import Image

    grid = len(rows)
    edges = np.linspace(0, SIDE, grid + 1).round().astype(int)
    place = np.repeat(np.arange(grid), np.diff(edges))  # pixel -> row or column of the grid
    group = rows[place][:, place]  # (SIDE, SIDE)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    number = group.ravel() + 1
    counts = np.maximum(np.bincount(number), 1)
    means = np.stack([np.bincount(number, pixels[..., i].ravel()) / counts for i in range(3)], axis=-1)
    alone = np.bincount((rows + 1).ravel(), minlength=len(counts)) == 1  # what stands for itself keeps its detail
    drawn = np.where(alone[number][:, None], pixels.reshape(-1, 3), means[number]).reshape(pixels.shape)
    drawn[group < 0] = 0.25 * pixels[group < 0]
    border = np.zeros(group.shape, bool)
    border[:, 1:] |= group[:, 1:] != group[:, :-1]
    border[1:] |= group[1:] != group[:-1]
    drawn[border] = 0.6 * drawn[border] + 0.4 * 255
    return Image.fromarray(drawn.clip(0, 255).astype(np.uint8))


def _uri(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
