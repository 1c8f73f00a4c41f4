"""How a reduced graph is compared with its reference: what it chooses and what it computes, apart from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
import torch

from edgetok import plugins
from edgetok.retype import retype
from edgetok.runtimes import ort
from edgetok.technique import Plan, Selection, Spec, State, load
from edgetok.view import TransformerView
from edgetok.view.site import Site
from tests import hooks
from tests.hooks import Choice, Reference

Select = Callable[[Site, Any], Selection[ir.Value]]
CHOSEN = ("order", "destination", "weight", "share")

RELATIVE = 1e-4
PERTURBATIONS = 24


def session(model: ir.Model | bytes, native: bool = False) -> onnxruntime.InferenceSession:
    """The model on onnxruntime's CPU provider, one thread; with edgetok's C++ operators, or by its functions."""
    if isinstance(model, bytes):
        data = model
    else:
        plugins.add_functions(model)
        data = ir.to_proto(model).SerializeToString()
    if native:
        return ort.session(data, threads=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The outputs by name."""
    names = [output.name for output in opened.get_outputs()]
    arrays = opened.run(names, {name: value.numpy() for name, value in feeds.items()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


@dataclass
class Reduced:
    """A reduced graph that also gives out what was chosen at each place.

    Attributes:
        session: the graph.
        spec: what it was reduced by.
        plan: {block: how many tokens go}, or {number of blocks: how many} behind the encoder.
    """

    session: onnxruntime.InferenceSession
    spec: Spec
    plan: dict[int, int]

    def run(self, feeds: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[Choice]]:
        """The model's own outputs, and the tensors of each selection."""
        outputs = run(self.session, feeds)
        choices = [
            Selection(**{name: outputs.pop(f"{name}_{i}", None) for name in CHOSEN}) for i in range(len(self.plan))
        ]
        return outputs, choices


def reduce(data: bytes, spec: Spec, dtype: str = "fp32", select: Select | None = None, native: bool = False) -> Reduced:
    """Reduce a captured graph by a technique.

    Args:
        data: the captured model.
        spec: technique, schedule and options.
        dtype: of the graph.
        select: in place of the technique's own graph form.
        native: whether the C++ operators run.
    """
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    retype(model, dtype)
    technique = load(spec.name)
    select = select or technique.select
    view = TransformerView.of(model)
    blocks, crops = len(view.blocks), Plan(spec.name, technique, spec.config, {}).crops
    if technique.where == "output":
        plan = {blocks: crops * spec.schedule.behind(view.tokens - view.prefix)}
    else:
        plan, _ = spec.schedule.resolve(view.tokens, view.prefix, blocks, technique.at_most)
    selections: list[Selection[ir.Value]] = []

    def recorded(site: Site, config: Any) -> Selection[ir.Value]:
        selections.append(select(site, config))
        return selections[-1]

    recording = replace(technique, select=recorded)
    inside = {block: count for block, count in plan.items() if block < blocks}
    view.reduce([Plan(spec.name, recording, spec.config, inside, behind=plan.get(blocks, 0) // crops)])
    for i, selection in enumerate(selections):
        for name in CHOSEN:
            if (value := getattr(selection, name)) is not None:
                value.name = f"{name}_{i}"
                value.dtype = ir.DataType.INT64 if name in ("order", "destination") else ir.DataType.FLOAT
                model.graph.outputs.append(value)
    plugins.add_functions(model)
    return Reduced(session(model, native), spec, plan)


def compare(
    reduced: Reduced,
    family: str,
    module: torch.nn.Module,
    feeds: dict[str, torch.Tensor],
    dtype: torch.dtype = torch.float32,
) -> int:
    """Compare a reduced graph with the hooked module, computed in fp64 and in the graph's type.

    Returns:
        How many choices differ because their scores are equal to within rounding.

    Raises:
        AssertionError: it chooses other tokens, or computes something else from the same choice.
    """
    got, choices = reduced.run(feeds)
    technique, config = load(reduced.spec.name), reduced.spec.config
    dynamic = Plan(reduced.spec.name, technique, config, {}).dynamic
    for choice, most in zip(choices, reduced.plan.values(), strict=True):
        order, destination = choice.order, choice.destination
        count = destination.shape[1] if dynamic else most
        kept = order.shape[1] - count
        assert (order.sort(dim=1).values == torch.arange(order.shape[1])).all(), "a token is chosen twice"
        if destination is not None:
            assert destination.shape[1] == count <= most, f"{destination.shape[1]} tokens go, not {count}"
            prefix = 0 if technique.where == "output" else hooks.PREFIX.get(family, 0)  # an output may lack it
            assert ((destination >= prefix) & (destination < kept)).all(), "a destination that is none"
    exact, single = (Reference(family, technique, config, reduced.plan, forced=choices) for _ in range(2))
    wanted = exact.run(module, feeds, torch.float64)
    plain = single.run(module, feeds, dtype)
    ties = 0
    for state, rounded, own, choice in zip(exact.states, single.states, exact.chosen, choices, strict=True):
        count = reduced.plan[state.block]
        ties += check_choice(choice, own, state, rounded, lambda s, c=count: technique.reference(s, c, config), count)
    for choice, own, near in zip(choices, exact.chosen, single.chosen, strict=True):
        check_weights(choice, own, near)
    check_values(got, wanted, plain)
    return ties


def check_choice(
    got: Choice, wanted: Choice, state: State, rounded: State, choose: Callable[[State], Choice], count: int
) -> int:
    """The same tokens go, into the same tokens, and those that stay stand in the same order.

    A difference is excused where the reference's own choice moves when what it saw is moved by as much as rounding.

    Args:
        got: the graph's choice.
        wanted: the reference's in fp64.
        state: what the reference saw, in fp64.
        rounded: the same in the graph's type.
        choose: the reference.
        count: how many tokens go.

    Returns:
        How many differences were excused.
    """
    right = fate(wanted, count)
    differs = fate(got, count) != right
    if not differs.any():
        return 0
    generator = torch.Generator().manual_seed(0)
    moves = torch.zeros_like(differs)
    for _ in range(PERTURBATIONS):
        moves |= fate(choose(moved(state, rounded, generator)), count) != right
    assert not (differs & ~moves).any(), f"block {state.block}: other tokens are chosen"
    return int(differs.sum())


def moved(state: State, rounded: State, generator: torch.Generator) -> State:
    """A state whose tensors are moved by twice their own rounding."""

    def near(name: str) -> torch.Tensor | None:
        exact, coarse = getattr(state, name), getattr(rounded, name)
        if exact is None:
            return None
        noise = (coarse.double() - exact).pow(2).mean().sqrt() + 1e-7 * exact.pow(2).mean().sqrt()
        return exact + 2 * noise * torch.randn(exact.shape, generator=generator, dtype=torch.float64)

    return replace(state, **{name: near(name) for name in ("hidden", "queries", "keys", "values", "memory", "source")})


def check_weights(got: Choice, wanted: Choice, plain: Choice) -> None:
    """What goes with a choice, of the samples that chose as the reference did: the same, by the rule of values.

    All samples count as one: of a few dozen numbers, PyTorch's own error is now and then half of what it usually is.
    """
    same = [
        b for b, row in enumerate(got.order) if torch.equal(row, wanted.order[b]) and torch.equal(row, plain.order[b])
    ]
    names = [name for name in CHOSEN[2:] if getattr(got, name) is not None and same]
    check_values(*({name: getattr(each, name)[same][None] for name in names} for each in (got, wanted, plain)))


def fate(choice: Choice, count: int) -> torch.Tensor:
    """(B, 2 N): the token that each one ends in (-1: none), and the tokens that stay in their order."""
    order, destination = choice.order, choice.destination
    count = count if destination is None else destination.shape[1]
    stay = order[:, : order.shape[1] - count]
    gone = torch.full((len(order), count), -1) if destination is None else stay.gather(1, destination)
    ends = torch.empty_like(order).scatter_(1, order, torch.cat([stay, gone], dim=1))
    return torch.cat([ends, torch.nn.functional.pad(stay, (0, count), value=-1)], dim=1)


def check_values(
    got: dict[str, torch.Tensor],
    wanted: dict[str, torch.Tensor],
    plain: dict[str, torch.Tensor],
    relative: float = RELATIVE,
) -> None:
    """For every sample of every output: the error is at most twice PyTorch's own, or `relative`.

    Args:
        got: the graph's outputs.
        wanted: PyTorch's in fp64.
        plain: PyTorch's in the graph's type.
        relative: error that is always allowed.
    """
    assert got.keys() == wanted.keys()
    for name, exact in wanted.items():
        assert got[name].shape == exact.shape, f"{name}: {tuple(got[name].shape)} is not {tuple(exact.shape)}"
        if not exact.is_floating_point():
            assert torch.equal(got[name], exact), f"{name}: other places"
            continue
        for sample, (a, b, c) in enumerate(zip(got[name], exact, plain[name], strict=True)):
            error, own = (float((value.double() - b).norm() / b.norm()) for value in (a, c))
            allowed = max(2 * own, relative)
            assert error <= allowed, f"{name}, sample {sample}: error {error:.1e}, allowed {allowed:.1e}"


def unreduced(
    data: bytes, module: torch.nn.Module, feeds: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Compare a captured graph with its module, computed in fp64 and in the graph's type."""
    wanted, plain = (hooks.run(module, feeds, each) for each in (torch.float64, dtype))
    check_values(run(session(data), feeds), wanted, plain)
