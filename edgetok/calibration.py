"""Counts that are found on samples: a technique says how it scores the tokens, and how many go by such scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetok.technique import Observe, Plan

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.view.site import Site

Run = Callable[["ir.Model"], "dict[str, np.ndarray]"]  # a graph on the samples


def calibrated(model: ir.Model, before: Sequence[Plan], plan: Plan, free: int, run: Run) -> Plan:
    """The plan with the counts that its technique finds on the samples.

    What a block scores depends on how many tokens went before it, so the counts are found again under the counts found,
    until they stay. Thresholds that are given settle one block a round at least; for those that follow from a budget it
    ends after as many rounds too, with the last counts.

    Args:
        model: the typed graph, which stays as it is.
        before: what other techniques do in earlier blocks.
        plan: with the scheduled counts.
        free: how many tokens can go, of those that the earlier techniques leave.
        run: runs a graph on the samples.
    """
    calibration, counts = plan.technique.calibration, plan.counts
    assert calibration is not None
    scores: dict[int, np.ndarray] = {}
    for _ in plan.counts:
        scores = measure(model, before, _fixed(plan, counts), plan.counts, run)
        found = possible(calibration.counts(scores, plan.counts, plan.config), free, plan.technique.at_most)
        if found == counts:
            break
        counts = found
    if plan.dynamic:
        assert calibration.settle is not None
        most, config = calibration.settle(scores, plan.counts, plan.config)
        return replace(plan, counts=most, mean=counts, config=config)
    return replace(plan, counts={block: count for block, count in counts.items() if count})


def _fixed(plan: Plan, counts: Mapping[int, int]) -> Plan:
    """The plan with these counts, in every sample."""
    config = replace(plan.config, dynamic=False) if plan.dynamic else plan.config
    return replace(plan, config=config, counts={block: count for block, count in counts.items() if count})


def possible(counts: Mapping[int, int], free: int, at_most: float) -> dict[int, int]:
    """The counts, each no more than can go at once: what was found for a block held under other counts before it."""
    result: dict[int, int] = {}
    for block, count in counts.items():
        result[block] = min(count, int((free - sum(result.values())) * at_most))
    return result


def measure(
    model: ir.Model, before: Sequence[Plan], plan: Plan, blocks: Iterable[int], run: Run
) -> dict[int, np.ndarray]:
    """{block: (samples, K)}: the scores in these blocks, when tokens are reduced by the plans."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from edgetok import graph as g
    from edgetok.view import TransformerView

    calibration = plan.technique.calibration
    assert calibration is not None
    copy = model.clone()
    scores: dict[str, ir.Value] = {}

    def watch(site: Site, memory: ir.Value | None, config: Any) -> None:
        if site.block in blocks and (score := calibration.scores(site, config)) is not None:
            score.name = f"scores_{site.block}"
            scores[score.name] = g.typed(score, ir.DataType.FLOAT, [None, None])

    watching = replace(plan.technique, observe=Observe(watch, lambda state, memory, config: None))
    TransformerView.of(copy).reduce([*before, replace(plan, technique=watching)])
    copy.graph.outputs[:] = scores.values()
    RemoveUnusedNodesPass()(copy)
    found = run(copy) if scores else {}
    return {block: found[f"scores_{block}"] for block in blocks if f"scores_{block}" in scores}
