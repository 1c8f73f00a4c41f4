"""Tokens of a picture tile by tile, so that a block of them is a piece of it and not a strip of its rows.

Fast Video Generation with Sliding Tile Attention, https://arxiv.org/abs/2502.04507, section 3; LLSA
(https://arxiv.org/abs/2512.16615) sorts pictures so as well. 8 x 8 patches have more in common than 64 of one row, so
that fewer blocks hold the same share of attention (docs/attention.md has figures).

What differs: published tiles have one size, and what they do not fill is padded. Here the rows of patches are cut into
bands of about `height`, and a band is read column by column, the next one backwards; blocks are cut from that line, so
that any side will do and nothing is padded.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from edgetok.errors import Refusal


def fit(tokens: int, prefix: int) -> bool:
    """Whether the tokens behind the prefix may be a square of patches."""
    return isqrt(tokens - prefix) ** 2 == tokens - prefix


def order(tokens: int, prefix: int, height: int) -> np.ndarray:
    """(N,) int64: the tokens tile by tile, the prefix in front.

    Args:
        tokens: N, the prefix among them.
        prefix: leading tokens that are no patches.
        height: of a band, in patches; 8 for blocks of 64.

    Raises:
        Refusal: the patches are no square.
    """
    side = isqrt(tokens - prefix)
    if not fit(tokens, prefix):
        raise Refusal(
            f"tiles= cuts a square of patches, and behind the first {prefix} there are {tokens - prefix} tokens",
            way_out="leave tiles= out, or give a square picture (--size)",
        )
    edges = np.linspace(0, side, max(1, round(side / height)) + 1).round().astype(np.int64)
    bands = np.split(prefix + np.arange(side * side).reshape(side, side), edges[1:-1])
    lines = [band.T[:: -1 if number % 2 else 1].reshape(-1) for number, band in enumerate(bands)]
    return np.concatenate([np.arange(prefix), *lines])
