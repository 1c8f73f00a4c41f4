"""edgetok's own kernels for ONNX Runtime on a CPU (plugins/native/), which never expand the weights.

They read what the canonical graph stores: the same codes, codebook and scales. E4M3 scales become fp16, which holds
them exactly, and the global scale an attribute; E8M0 becomes fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.lowbit.node import swap
from edgetok.lowbit.weight import Weight

if TYPE_CHECKING:
    from edgetok.lowering import Arithmetic

DOMAIN = "edgetok.native"
MOST_PLANES = 6


def lower(graph: ir.Graph, node: ir.Node, weight: Weight, arithmetic: Arithmetic) -> bool:
    """Put the native operator in the node's place; False for what it does not know: 8 bits."""
    if weight.bits == 8 or weight.scales.shape[2] > MOST_PLANES:
        return False
    scales = weight.scales
    if scales.dtype == ml_dtypes.float8_e4m3fn:
        scales = scales.astype(np.float16)
    elif scales.dtype == ml_dtypes.float8_e8m0fnu:
        scales = scales.astype(np.float32)

    def write(op: g.Emitter, x: ir.Value) -> ir.Value:
        written: ir.Value = op.LutMatMul(
            x, *node.inputs[1:3], scales, domain=DOMAIN, bits=weight.bits, inner=weight.shape[1],
            alpha=float(weight.global_scale), mode=arithmetic,
        )  # fmt: skip
        return written

    swap(graph, node, write, in_fp32=True)
    return True
