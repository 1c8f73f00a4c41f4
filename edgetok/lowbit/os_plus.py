"""Outlier Suppression+: what few channels have too much of is moved from the activations into the weights behind them.

Outlier Suppression+: Accurate quantization of large language models by equivalent and effective shifting and scaling
(EMNLP 2023), https://arxiv.org/abs/2304.09145, sections 4.1 and 4.2.

The output X of a norm becomes (X - z) / s: z centres each channel, and s narrows those that reach beyond a threshold t.
The norm's weights take both, and so do the layers behind it, W diag(s) and b + W z: in fp32 nothing changes. t is the
one of a grid, from the widest channel down to 1, under which the rounded product has the least squared error.

What differs: the published code judges q, k and v by the attention that comes of them, here every layer behind a norm
is judged by its own output; all samples count, where the code takes shift and scale from the first batch; the weights
are rounded to int8 per output while t is sought, whatever they become afterwards. Whoever else reads the norm's output
(the residual stream of BERT) reads it multiplied by s with z added back. A norm without a bias is scaled only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgetok import graph as g
from edgetok.calibration import Run
from edgetok.lowbit.linear import Linear, activations, find_linears

if TYPE_CHECKING:
    from edgetok.lowbit.activations import Spec

NORMS = ("LayerNormalization", "RMSNormalization")
FEWEST_STEPS = 100  # of the grid of thresholds


def migrate(model: ir.Model, spec: Spec, run: Run) -> int:
    """Move outliers of the norms' outputs into the layers behind them, in place.

    Returns:
        How many norms were changed.
    """
    behind: dict[ir.Value, list[Linear]] = {}
    for linear in find_linears(model.graph):
        producer = linear.input.producer()
        weight = g.constant_of(producer.inputs[1]) if producer is not None and producer.op_type in NORMS else None
        if weight is not None and spec.where.takes(linear.name):
            behind.setdefault(linear.input, []).append(linear)
    seen = activations(model, list(behind), run)
    changed = 0
    for value, linears in behind.items():
        norm = value.producer()
        assert norm is not None
        found = shift_and_scale(
            seen[value].rows, [linear.matrix for linear in linears], shifted=norm.op_type == "LayerNormalization"
        )
        if found is not None:
            _apply(model.graph, norm, linears, *found)
            changed += 1
    return changed


def shift_and_scale(
    rows: np.ndarray, matrices: Sequence[np.ndarray], *, shifted: bool = True
) -> tuple[np.ndarray, np.ndarray] | None:
    """z and s of each channel.

    Args:
        rows: (S, K) what the norm gives.
        matrices: (N, K) of the layers behind it.
        shifted: whether channels may be centred.

    Returns:
        z (K,) and s (K,); None where no channel reaches beyond 1.
    """
    high, low = rows.max(axis=0), rows.min(axis=0)
    shift = (high + low) / 2 if shifted else np.zeros_like(high)
    rows, reach = rows - shift, np.maximum(np.abs(high - shift), np.abs(low - shift))
    widest = float(reach.max(initial=0))
    if widest <= 1:
        return None
    matrix = np.concatenate(matrices)
    exact = rows @ matrix.T
    steps = max(FEWEST_STEPS, int(widest / 0.5))
    best, least = None, np.inf
    for threshold in widest - np.arange(steps) * (widest - 1) / steps:
        scale = np.maximum(1, reach / threshold).astype(np.float32)
        error = _int8_tensor(rows / scale, threshold) @ _int8_outputs(matrix * scale).T - exact
        loss = float(np.square(error, dtype=np.float64).sum())
        if loss < least:
            best, least = scale, loss
    assert best is not None
    return shift.astype(np.float32), best


def _int8_tensor(rows: np.ndarray, largest: float) -> np.ndarray:
    step = np.float32(largest / 127)
    return np.clip(np.rint(rows / step), -127, 127) * step


def _int8_outputs(matrix: np.ndarray) -> np.ndarray:
    step = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-30) / np.float32(127)
    return np.rint(matrix / step) * step


def _apply(graph: ir.Graph, norm: ir.Node, linears: Sequence[Linear], shift: np.ndarray, scale: np.ndarray) -> None:
    """(X - z) / s from the norm, W diag(s) and b + W z behind it."""
    value, dtype = norm.outputs[0], norm.outputs[0].dtype
    assert dtype is not None

    def stored(array: np.ndarray) -> ir.Value:
        return g.constant(graph, np.ascontiguousarray(array.astype(dtype.numpy())))

    others = [(node, place) for node, place in g.consumers(value) if node not in {linear.node for linear in linears}]
    gamma = g.constant_of(norm.inputs[1])
    assert gamma is not None
    norm.replace_input_with(1, stored(gamma.astype(np.float32) / scale))
    if norm.op_type == "LayerNormalization":
        old = g.constant_of(norm.inputs[2]) if len(norm.inputs) > 2 else None
        beta = np.zeros_like(shift) if old is None else old.astype(np.float32)
        norm.resize_inputs(3)
        norm.replace_input_with(2, stored((beta - shift) / scale))
    for linear in linears:
        node = linear.node
        turned = bool(g.attribute(node, "transB", 0))
        matrix = linear.matrix * scale
        node.replace_input_with(1, stored(matrix if turned else matrix.T))
        node.attributes.pop("alpha", None)  # it is in the matrix
        if shift.any():
            _add_bias(graph, node, stored(linear.matrix @ shift), linear.name)
    if others or value.is_graph_output():
        op = g.Emitter(graph)
        wide = g.named(op.Mul(value, stored(scale)), f"{norm.name}.scale")
        as_it_was = g.named(op.Add(wide, stored(shift)), f"{norm.name}.shift")
        g.typed(as_it_was, dtype, list(value.shape or ()))
        for node, place in others:
            node.replace_input_with(place, as_it_was)
        graph.sort()


def _add_bias(graph: ir.Graph, node: ir.Node, bias: ir.Value, name: str) -> None:
    """Let all readers of a product read it with a bias added."""
    value = node.outputs[0]
    users = g.consumers(value)
    added = g.named(g.Emitter(graph).Add(value, bias), f"{name}.shift")
    g.typed(added, value.dtype, list(value.shape or ()))
    for user, place in users:
        user.replace_input_with(place, added)
    for place, output in enumerate(graph.outputs):
        if output is value:
            value.name, added.name = f"{value.name}.unshifted", value.name
            graph.outputs[place] = added
    graph.sort()
