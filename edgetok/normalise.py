"""One spelling for every graph, whatever exported it."""

from __future__ import annotations

import onnx_ir as ir


def normalise(model: ir.Model) -> None:
    """Bring a graph into edgetok's spelling, in place."""
