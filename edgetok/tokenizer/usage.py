"""A tokenizer's rate, and how much of its codebooks it uses: codes that occur, and the entropy of their counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np


class CodebookUse(BaseModel):
    """One codebook over some ids.

    Attributes:
        size: how many codes there are.
        used: how many of them occur.
        entropy: of the ids' counts, in bits; at most log2 of `size`, and of the number of ids.
        ids: how many were counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    used: int
    entropy: float
    ids: int


def told_rate(bits: float, unit: str) -> str:
    """For people: "0.5775 bits a pixel", "11.31 kbit a second"."""
    return f"{bits:.4g} bits a {unit}" if bits < 1000 else f"{bits / 1000:.4g} kbit a {unit}"


def codebook_use(ids: np.ndarray, sizes: tuple[int, ...]) -> tuple[CodebookUse, ...]:
    """Count ids (B, N), or (B, N, L) with L codebooks of these sizes; ids of -1, levels left out, are none."""
    import numpy as np

    levels = ids[..., None] if len(sizes) == 1 and ids.ndim == 2 else ids
    made = []
    for size, of in zip(sizes, np.moveaxis(levels, -1, 0), strict=True):
        counts = np.unique(of[of >= 0], return_counts=True)[1]
        share = counts / max(1, counts.sum())
        entropy = abs(float(-(share * np.log2(share)).sum()))
        made.append(CodebookUse(size=size, used=len(counts), entropy=round(entropy, 4), ids=int(counts.sum())))
    return tuple(made)
