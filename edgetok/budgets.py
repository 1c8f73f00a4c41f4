"""`--attention auto`: how long each block's lists must be for a given fidelity, measured on the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgetok import attention as sparse
from edgetok import graph as g
from edgetok.attention import AttentionSpec, Auto
from edgetok.errors import Refusal
from edgetok.view import tiles
from edgetok.view.masks import Mask

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.calibration import Run
    from edgetok.view import TransformerView
    from edgetok.view.sparse import AttentionSite

TECHNIQUE = "block-topk"
ROWS = 16  # blocks of queries that are measured, evenly spaced: no map of all pairs of tokens is made
DENSE = 0.75  # what needs more of its keys stays dense: choosing eats up what is won
MASSES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)  # min-cosine tries

Found = tuple[tuple[AttentionSpec, ...], dict[int, float]]


def found(view: TransformerView, spec: AttentionSpec, run: Run | None) -> Found:
    """Specs for the blocks that need not look at everything, and the share of attention that each of them keeps.

    Args:
        view: of the graph, its tokens reduced already; it is left as it is.
        spec: of `auto`.
        run: runs a graph on the samples.

    Raises:
        Refusal: attention cannot be made sparse there, or there are no samples.
    """
    if run is None:
        raise Refusal("auto measures on samples, and there are none", way_out="give density= to block-topk")
    config: Auto = spec.config
    lists, curves = _measured(view, spec, run)
    if not config.min_cosine:
        return _picked(curves, config.mass or 0.95, lists)
    if view.stages:
        raise Refusal("auto:min-cosine measures the model alone, and its tokens are reduced", way_out="auto:mass=0.95")
    dense = run(view.model.clone())
    low, high = 0, len(MASSES)  # MASSES[high] is enough
    while low < high:
        middle = (low + high) // 2
        if _cosine(view, _picked(curves, MASSES[middle], lists)[0], run, dense) >= config.min_cosine:
            high = middle
        else:
            low = middle + 1
    return _picked(curves, MASSES[high], lists) if high < len(MASSES) else ((), {})


def _measured(view: TransformerView, spec: AttentionSpec, run: Run) -> tuple[AttentionSpec, dict[int, np.ndarray]]:
    """block-topk with full lists, and what its lists hold if they are shorter.

    What is not listed is seen by its means where all tokens count alike, and a picture's tokens are cut into tiles or
    left row by row, as lists hold more.
    """
    means = view.mask is Mask.NONE and not view.stages
    config = sparse.load(TECHNIQUE).config(density=1.0, means=means, block=spec.config.block)
    orders = [replace(spec, name=TECHNIQUE, config=config)]
    if means and not spec.shared.tiles and tiles.fit(view.tokens, view.prefix):
        orders.append(replace(orders[0], shared=replace(spec.shared, tiles=round(config.block**0.5))))
    measured = [(lists, kept_mass(view, lists, run)) for lists in orders]
    return max(measured, key=lambda each: sum(float(curve.mean()) for curve in each[1].values()))


def _picked(curves: Mapping[int, np.ndarray], mass: float, lists: AttentionSpec) -> Found:
    """The shortest lists that hold the mass, blocks with equally long ones together."""
    lengths: dict[int, list[int]] = {}
    masses: dict[int, float] = {}
    for block, curve in curves.items():
        shortest = replace(lists.config, density=0.001).count(len(curve))
        enough = np.flatnonzero(curve[shortest - 1 :] >= mass)
        count = shortest + int(enough[0]) if len(enough) else len(curve)
        if count <= DENSE * len(curve):
            lengths.setdefault(count, []).append(block)
            masses[block] = float(curve[count - 1])
    specs = []
    for count, blocks in sorted(lengths.items()):
        density = round((count - 0.5) / len(curves[blocks[0]]), 4)  # of which block-topk takes the next whole block
        shared = replace(lists.shared, layers="/".join(map(str, blocks)))
        specs.append(AttentionSpec(TECHNIQUE, replace(lists.config, density=density), shared))
    return tuple(specs), masses


def kept_mass(view: TransformerView, full: AttentionSpec, run: Run) -> dict[int, np.ndarray]:
    """{block: (K,)}: the share of attention that the best 1, 2, ... K blocks of keys of full lists hold."""
    from edgetok.view.measured import on_samples
    from edgetok.view.sparse import sites

    technique, config = sparse.load(full.name), full.config
    dtype, curves = view.model.graph.outputs[0].dtype, {}
    for site, block, _ in sites(view, full):
        lists = technique.lists(site, config)
        if lists.whole >= site.blocks(config.block):
            continue  # as short as that it stays dense
        curves[block.index] = g.typed(_curve(site, lists.index, lists.whole, config.block), dtype, [None])
    measured = on_samples(view.model, {f"kept_{block}": curve for block, curve in curves.items()}, run)
    return {block: measured[f"kept_{block}"] for block in curves}


def _curve(site: AttentionSite, index: ir.Value, whole: int, block: int) -> ir.Value:
    """(K,) fp32: what dense attention gives to the first blocks of lists (B, h, Q, K), cumulated, of some rows."""
    import onnx_ir as ir

    from edgetok.view.masks import BARRED

    op, blocks, tokens = site.op, site.blocks(block), site.tokens
    rows = np.unique(np.linspace(whole, blocks - 1, min(ROWS, blocks - whole)).round().astype(np.int64))
    place = (rows[:, None] * block + np.arange(block)).reshape(-1)
    fill = np.array([0, 0, 0, 0, 0, 0, 0, blocks * block - tokens])
    query = op.Gather(op.Cast(site.query, to=ir.DataType.FLOAT), np.minimum(place, tokens - 1), axis=2)
    keys = site.for_heads(op.Cast(site.key, to=ir.DataType.FLOAT), site.width)
    scores = op.MatMul(op.Mul(query, np.float32(site.scale)), op.Transpose(keys, perm=[0, 1, 3, 2]))
    scores = op.Add(scores, op.Unsqueeze(site.bias_row(), np.array([1, 2])))
    if site.causal:
        scores = op.Add(scores, np.where(np.arange(tokens) > place[:, None], np.float32(BARRED), np.float32(0)))
    weights = op.Pad(op.Softmax(scores, axis=3), fill)
    asks: ir.Value | np.ndarray = (place < tokens).astype(np.float32)[None, :, None]
    if site.size is not None:
        real = op.Cast(op.Greater(site.size, np.float32(0)), to=ir.DataType.FLOAT)
        asks = op.Mul(op.Gather(real, np.minimum(place, tokens - 1), axis=1), asks)
    weights = op.Mul(weights, op.Unsqueeze(asks, np.array([1])))
    apart = op.Reshape(weights, np.array([0, site.heads, len(rows), block, blocks, block]))
    mass = op.ReduceSum(apart, np.array([3, 5]), keepdims=0)  # (B, h, rows, K)
    held = op.GatherElements(mass, op.Cast(op.Gather(index, rows - whole, axis=2), to=ir.DataType.INT64), axis=3)
    sums = op.ReduceSum(op.CumSum(held, np.array(3)), np.array([0, 1, 2]), keepdims=0)
    out: ir.Value = op.Div(sums, op.ReduceSum(mass, keepdims=0))
    return out


def _cosine(
    view: TransformerView, specs: tuple[AttentionSpec, ...], run: Callable[[ir.Model], dict[str, np.ndarray]],
    dense: Mapping[str, np.ndarray],
) -> float:  # fmt: skip
    """The least over the outputs of the mean cosine of their tokens with the dense model's."""
    from edgetok.view import TransformerView
    from edgetok.view.sparse import attend_sparsely

    trial = view.model.clone()
    attend_sparsely(TransformerView.of(trial), specs)
    least = 1.0
    for name, got in run(trial).items():
        if got.dtype.kind == "f":
            a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (got, dense[name]))
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            least = min(least, float(((a * b).sum(axis=1) / np.maximum(norms, 1e-300)).mean()))
    return least
