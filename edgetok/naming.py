"""Names for nodes: which block and which part of it they belong to, as profiles and `inspect` read them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgetok import graph as g

if TYPE_CHECKING:
    from edgetok.view import TransformerView


def name_nodes(model: ir.Model, view: TransformerView | None) -> None:
    """Name nodes `embed/Conv`, `blocks.3/attention/MatMul.2`, `blocks.3/reduce/...`, `blocks.3/mlp/...`, `head/...`.

    Args:
        model: the graph.
        view: its blocks; without them every node is named `graph/...`.
    """
    parts: dict[ir.Node, str] = {}
    if view is not None:
        for block in view.blocks:
            where = f"blocks.{block.index}"
            _claim(parts, block.stream, "embed" if block.index == 0 else f"blocks.{block.index - 1}/mlp")
            if (weights := block.stream.meta.get("attention")) is not None:
                _claim(parts, weights, f"{where}/attention")
            _claim_reduction(parts, block.stream, f"{where}/reduce")
            _claim(parts, block.after_attention, f"{where}/attention")
            _claim_reduction(parts, block.after_attention, f"{where}/reduce")
    last = f"blocks.{view.blocks[-1].index}" if view is not None else ""
    behind = _mlp_of_last(view, parts) if view is not None else set()
    counts: Counter[str] = Counter()
    for node in model.graph:
        rest = f"{last}/mlp" if node in behind else "head" if view is not None else "graph"
        stem = f"{parts.get(node, rest)}/{node.op_type}"
        node.name = f"{stem}.{counts[stem]}" if counts[stem] else stem
        counts[stem] += 1


def _claim(parts: dict[ir.Node, str], value: ir.Value, part: str) -> None:
    """Give a part to everything that a value needs and that has none yet."""
    for node in g.ancestors([value]):
        parts.setdefault(node, part)


def _claim_reduction(parts: dict[ir.Node, str], hidden: ir.Value, part: str) -> None:
    """Give a part to what reduces the tokens of a value."""
    made = [hidden.meta.get(name) for name in ("reduced", "rows", "bias")]
    for value in (*made, *hidden.meta.get("companions", {}).values()):
        if value is not None:
            _claim(parts, value, part)


def _mlp_of_last(view: TransformerView, parts: dict[ir.Node, str]) -> set[ir.Node]:
    """The nodes up to the last block's second residual add, which is the first that joins the stream again."""
    start = view.blocks[-1].after_attention
    start = start.meta.get("reduced", start)
    branch: set[ir.Value] = {start}
    seen: set[ir.Node] = set()
    for node in view.model.graph:
        if node in parts or not any(value in branch for value in node.inputs):
            continue
        seen.add(node)
        if node.op_type == "Add" and sum(value in branch for value in node.inputs) == 2:
            return seen
        branch.update(node.outputs)
    return set()
