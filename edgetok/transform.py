"""From a captured graph to a bundle: type it, reduce its tokens, compare it with the original, write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok import options, technique
from edgetok.calibration import Run, calibrated
from edgetok.errors import Refusal, UsageError
from edgetok.flops import Work, within_budget
from edgetok.manifest import LowBit, SparseBlock, Step, TokenMap
from edgetok.schedule import Schedule

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.attention import AttentionSpec
    from edgetok.lowbit.activations import Spec as Activations
    from edgetok.lowbit.quantise import FewBits
    from edgetok.model import TensorSpec
    from edgetok.view import TransformerView

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Transformed:
    """A graph ready to be written.

    Attributes:
        model: the graph.
        tokens: of the first block; 0 when no block was recognised.
        schedule: what happens in which block.
        token_map: which outputs say where tokens went; None where all are restored.
        weights: the linear layers whose weights have few bits.
        activations: which are rounded.
        sparse: the blocks that attend sparsely.
        attention: how, each for some of the blocks.
        notes: for the user.
    """

    model: ir.Model
    tokens: int
    schedule: tuple[Step, ...]
    token_map: TokenMap | None
    weights: tuple[LowBit, ...]
    activations: Activations | None
    sparse: tuple[SparseBlock, ...]
    attention: tuple[AttentionSpec, ...]
    notes: tuple[str, ...]

    @property
    def rounded_to(self) -> str | None:
        """The spec of the activations, as a recipe holds it."""
        return None if self.activations is None else str(self.activations)

    @property
    def dynamic(self) -> bool:
        """Whether counts of tokens differ from input to input."""
        return any(step.dynamic for step in self.schedule)


def transform(
    model: ir.Model,
    specs: Sequence[technique.Spec],
    *,
    dtype: str,
    emit: str,
    run: Run | None = None,
    few_bits: FewBits | None = None,
    attention: Sequence[AttentionSpec] = (),
) -> Transformed:
    """Type a captured graph, reduce its tokens, let it attend sparsely, and quantise its weights, in place.

    Args:
        model: the captured graph.
        specs: the techniques, with how many tokens go where.
        dtype: "fp32", "fp16" or "bf16".
        emit: "full" or "reduced" tokens at the outputs.
        run: runs a graph on samples, for techniques that find their counts on them; without it the schedule stands.
        few_bits: which weights and activations get few bits.
        attention: which keys attention looks at, or `auto`, which finds it on the samples; none for all.

    Raises:
        Refusal: the graph's tokens cannot be reduced.
        UsageError: a schedule that does not fit the model.
    """
    from edgetok.naming import name_nodes
    from edgetok.retype import retype
    from edgetok.rewrite.heads import keep_heads_joined
    from edgetok.view import TransformerView

    retype(model, dtype)
    try:
        view = TransformerView.of(model)
    except Refusal:
        if specs or attention:
            raise
        view = None  # nothing is asked of the blocks
    steps: list[Step] = []
    notes: list[str] = []
    if view is not None and specs:
        plans = _plans(view, specs, steps, notes, run)
        view.reduce(plans, emit)
        kept = None if view.token_map is None else view.token_map.kept
        steps += [_step_behind(plan, kept) for plan in plans if plan.behind and kept is not None]
    sparse: tuple[SparseBlock, ...] = ()
    if view is not None and attention:
        from edgetok.budgets import found
        from edgetok.view.sparse import attend_sparsely

        masses: dict[int, float] = {}
        if attention[0].name == "auto":
            attention, masses = found(view, attention[0], run)
            notes.append(f"auto: {' + '.join(map(str, attention)) or 'all blocks stay dense'}")
        sparse = attend_sparsely(view, attention, masses, run)
    keep_heads_joined(model)
    _tidy(model)
    name_nodes(model, view)
    weights: tuple[LowBit, ...] = ()
    rounded = None
    if few_bits is not None:
        few_bits, told = few_bits.resolved(model)
        notes += told
        rounded = few_bits.activations
        weights = few_bits.apply(model)
        _tidy(model)
    token_map = view.token_map if view else None
    return Transformed(
        model, view.tokens if view else 0, tuple(steps), token_map, weights, rounded, sparse, tuple(attention),
        tuple(notes),
    )  # fmt: skip


def _plans(
    view: TransformerView, specs: Sequence[technique.Spec], steps: list[Step], notes: list[str], run: Run | None
) -> list[technique.Plan]:
    """What each technique does in which block, one after the other, and then behind the encoder."""
    plans: list[technique.Plan] = []
    tokens = view.tokens
    behind = [spec for spec in specs if technique.load(spec.name).where == "output"]
    if len(behind) > 1:
        raise UsageError(f"{behind[0].name} and {behind[1].name} both act behind the encoder: give one of them")
    inside = sorted((spec for spec in specs if spec not in behind), key=lambda spec: spec.schedule.first())
    for spec in inside:
        chosen = technique.load(spec.name)
        before = {block: count for plan in plans for block, count in plan.expected.items()}
        counts, more = _resolve(view, spec.schedule, before, chosen.at_most)
        notes += more
        plan = technique.Plan(spec.name, chosen, spec.config, counts)
        if chosen.calibration is not None and run is not None:
            plan = calibrated(view.model, plans, plan, tokens - view.prefix, run)
            given = " with " + ",".join(options.spelt(plan.config)) if plan.dynamic else ""
            found = f"on the samples {_listed(plan.expected)}{given}"
            notes.append(f"{spec.name}: {found}, scheduled were {_listed(counts)}")
        for block, count in plan.expected.items():
            if any(block in plan.counts for plan in plans):
                raise UsageError(f"two techniques reduce block {block}: give them different layers=")
            steps.append(
                Step(
                    block=block, technique=spec.name, tokens_in=tokens, tokens_out=tokens - count, dynamic=plan.dynamic
                )
            )  # fmt: skip
            tokens -= count
        plans.append(plan)
    acting = [block for plan in plans for block in plan.counts]
    if acting != sorted(acting):
        raise UsageError("the techniques' layers overlap: the first must end before the second begins")
    for spec in behind:
        count = spec.schedule.behind(tokens - view.prefix)
        plans.append(technique.Plan(spec.name, technique.load(spec.name), spec.config, {}, behind=count))
    return plans


def _listed(counts: Mapping[int, int]) -> str:
    """r=16/12/8,layers=2/3/4: as a spec would say it."""
    return f"r={'/'.join(map(str, counts.values()))},layers={'/'.join(map(str, counts))}" if counts else "none go"


def _resolve(
    view: TransformerView, schedule: Schedule, before: Mapping[int, int], at_most: float
) -> tuple[dict[int, int], list[str]]:
    """The count of tokens that go in each block, of those that earlier techniques leave, and notes for the user."""

    def resolve(schedule: Schedule) -> tuple[dict[int, int], list[str]]:
        return schedule.resolve(view.tokens - sum(before.values()), view.prefix, len(view.blocks), at_most)

    if schedule.budget:
        schedule = within_budget(schedule, Work.of(view), before, lambda candidate: resolve(candidate)[0])
    return resolve(schedule)


def _step_behind(plan: technique.Plan, kept: int) -> Step:
    """What a technique did to the tokens that are given out, of which `kept` are left."""
    tokens = kept + plan.behind * plan.crops
    return Step(block=None, technique=plan.name, tokens_in=tokens, tokens_out=kept)


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


def aligned(
    outputs: Mapping[str, np.ndarray], originals: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Reduced outputs and the original's, token by token.

    Reduced tokens (B, N', C) of blocks are spread to their N places by `token_rows`; of tokens that were kept behind
    the encoder the originals are taken at `token_positions`.
    """
    import numpy as np

    got, wanted = dict(outputs), dict(originals)
    rows, positions = outputs.get("token_rows"), outputs.get("token_positions")
    for name, original in originals.items():
        if name not in got or got[name].shape == original.shape:
            continue
        if positions is not None:
            whole = original.reshape(len(positions), -1, original.shape[-1])  # crops in one row
            wanted[name] = np.take_along_axis(whole, positions[..., None], axis=1)
        elif rows is not None:
            got[name] = np.take_along_axis(got[name], rows[..., None], axis=1)
    return got, wanted


def aligned_apart(
    run: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]],
    feeds: Mapping[str, np.ndarray],
    originals: Mapping[str, np.ndarray],
    batch: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As `aligned`, of samples run `batch` at a time: where counts of tokens differ, they depend on who is beside."""
    import numpy as np

    pairs = []
    for start in range(0, len(next(iter(feeds.values()))), batch):
        some, wanted = ({k: v[start : start + batch] for k, v in arrays.items()} for arrays in (feeds, originals))
        pairs.append(aligned(run(some), wanted))
    shared = pairs[0][0].keys() & pairs[0][1].keys()
    got, wanted = ({k: np.concatenate([pair[side][k] for pair in pairs]) for k in sorted(shared)} for side in (0, 1))
    return got, wanted


def sample_inputs(
    folder: Path | None, specs: Sequence[TensorSpec], carried: Path, example: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The inputs that a bundle is checked with: the user's files, or the seeded example."""
    if folder is None:
        return example
    from edgetok.errors import InputError
    from edgetok.inputs import load_inputs

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: --samples takes one of pictures, recordings, texts or .npz files")
    files = [str(file) for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} holds no files: --samples takes pictures, recordings, texts or .npz files")
    return load_inputs(files, specs, carried)
