"""What the class token attends to in the last block: flashvid and greedyprune choose by it behind the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok.technique import Observe, State

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


def observe(site: Site, memory: ir.Value | None, config: Any) -> ir.Value | None:
    """(B, N, 1)"""
    if site.block < site.blocks - 1:
        return None
    assert site.attention is not None
    return site.op.Unsqueeze(site.attention.class_row, np.array([2]))


def observed(state: State, memory: torch.Tensor | None, config: Any) -> torch.Tensor | None:
    """The same in PyTorch."""
    return state.class_row[..., None] if state.block == state.blocks - 1 else None


LAST_CLASS_ROW = Observe(observe, observed)
