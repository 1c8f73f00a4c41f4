"""From a captured graph to a bundle: type it, reduce its tokens, compare it with the original, write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.flops import Work, within_budget
from edgetok.manifest import Step
from edgetok.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.model import TensorSpec
    from edgetok.view import TransformerView
    from edgetok.view.view import Select

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Transformed:
    """A graph ready to be written.

    Attributes:
        model: the graph.
        tokens: of the first block; 0 when no block was recognised.
        schedule: what happens in which block.
        notes: for the user.
    """

    model: ir.Model
    tokens: int
    schedule: tuple[Step, ...]
    notes: tuple[str, ...]


def transform(model: ir.Model, specs: Sequence[technique.Spec], *, dtype: str, emit: str) -> Transformed:
    """Type a captured graph and reduce its tokens, in place.

    Args:
        model: the captured graph.
        specs: the techniques, with how many tokens go where.
        dtype: "fp32", "fp16" or "bf16".
        emit: "full" or "reduced" tokens at the outputs.

    Raises:
        Refusal: the graph's tokens cannot be reduced.
        UsageError: a schedule that does not fit the model.
    """
    from edgetok.naming import name_nodes
    from edgetok.retype import retype
    from edgetok.view import TransformerView

    retype(model, dtype)
    try:
        view = TransformerView.of(model)
    except Refusal:
        if specs:
            raise
        view = None  # nothing is asked of the blocks
    steps: list[Step] = []
    notes: list[str] = []
    if view is not None and specs:
        plan = _plan(view, specs, steps, notes)
        view.reduce(plan, emit)
    _tidy(model)
    name_nodes(model, view)
    return Transformed(model, view.tokens if view else 0, tuple(steps), tuple(notes))


def _plan(
    view: TransformerView, specs: Sequence[technique.Spec], steps: list[Step], notes: list[str]
) -> dict[int, tuple[int, Select]]:
    """What happens in which block."""
    plan: dict[int, tuple[int, Select]] = {}
    tokens = view.tokens
    for spec in sorted(specs, key=lambda spec: spec.schedule.first()):
        counts, more = _resolve(view, spec.schedule, {block: count for block, (count, _) in plan.items()})
        notes += more
        select = technique.load(spec.name).select
        for block, count in counts.items():
            if block in plan:
                raise UsageError(f"two techniques reduce block {block}: give them different layers=")
            plan[block] = (count, partial(_call, select, spec.config))
            steps.append(Step(block=block, technique=spec.name, tokens_in=tokens, tokens_out=tokens - count))
            tokens -= count
    if [step.block for step in steps] != sorted(step.block for step in steps):
        raise UsageError("the techniques' layers overlap: the first must end before the second begins")
    return plan


def _resolve(view: TransformerView, schedule: Schedule, before: Mapping[int, int]) -> tuple[dict[int, int], list[str]]:
    """The count of tokens that go in each block, of those that earlier techniques leave, and notes for the user."""

    def resolve(schedule: Schedule) -> tuple[dict[int, int], list[str]]:
        return schedule.resolve(view.tokens - sum(before.values()), view.prefix, len(view.blocks))

    if schedule.budget:
        schedule = within_budget(schedule, Work.of(view), before, lambda candidate: resolve(candidate)[0])
    return resolve(schedule)


def _call(select: Callable[..., technique.Selection], config: object, site: object) -> technique.Selection:
    return select(site, config)


def _tidy(model: ir.Model) -> None:
    """Function bodies in, unused and repeated parts out, shapes written down."""
    from onnx_ir.passes import common

    from edgetok.quiet import quiet

    with quiet():
        common.RemoveUnusedNodesPass()(model)
        common.DeduplicateInitializersPass(size_limit=64)(model)
        common.CommonSubexpressionEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
        common.RemoveUnusedOpsetsPass()(model)
        common.NameFixPass()(model)


def full_outputs(outputs: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs as the original gives them: reduced tokens (B, N', C) are spread to their N places by `token_rows`."""
    rows = outputs.get("token_rows")
    full = dict(outputs)
    for name, original in wanted.items():
        if rows is not None and name in full and full[name].shape != original.shape:
            import numpy as np

            full[name] = np.take_along_axis(full[name], rows[..., None], axis=1)
    return full


def sample_inputs(
    folder: Path | None, specs: Sequence[TensorSpec], carried: Path, example: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The inputs that a bundle is checked with: the user's files, or the seeded example."""
    if folder is None:
        return example
    from edgetok.errors import InputError
    from edgetok.inputs import load_inputs

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: --samples takes a folder with pictures, recordings or texts")
    files = [str(file) for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} holds no files: --samples takes a folder with pictures, recordings or texts")
    return load_inputs(files, specs, carried)
