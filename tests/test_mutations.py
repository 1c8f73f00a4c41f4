"""Every one of these mistakes, made in the graph alone, must be noticed by the comparisons that tests rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.exporters import pitome, tome
from edgetok.technique import Selection
from edgetok.view import positions
from edgetok.view.flow import Table
from edgetok.view.site import Site
from edgetok.view.stage import Stage
from tests.comparison import Select, compare, reduce
from tests.families import captured, feeds
from tests.test_golden import PITOME, TOME, check_stack

Mutant = Callable[[Select], Select]  # what makes the mistake in a graph form

STACKS = {"tome": (tome, TOME), "pitome": (pitome, PITOME)}
FAMILIES = ["vit", "bert"]
VALUES = "Not equal to tolerance"
CHOICE_OR_VALUES = "other tokens are chosen|a destination that is none|error .* allowed"


def seeing(change: Callable[[Site], Site]) -> Mutant:
    """The technique sees another site."""
    return lambda right: lambda site, config: right(change(site), config)


def asking(**options: object) -> Mutant:
    """The technique has other options."""
    return lambda right: lambda site, config: right(site, dataclasses.replace(config, **options))


def not_proportional(right: Select) -> Select:
    """Attention does not count merged tokens."""
    return lambda site, config: dataclasses.replace(right(site, config), proportional=False)


def shifted_split(right: Select) -> Select:
    """Odd positions are merged into even ones; the reference, which splits by the same function, is left alone."""
    sets = tome.sets

    def wrong(site: Site, config: Any) -> Selection:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(tome, "sets", lambda prefix, tokens: sets(prefix, tokens)[::-1])
            return right(site, config)

    return wrong


unprotected = seeing(lambda site: dataclasses.replace(site, prefix=0))
queries = seeing(lambda site: dataclasses.replace(site, key=site.query))
values = seeing(lambda site: dataclasses.replace(site, key=site.value))
first_block = seeing(lambda site: dataclasses.replace(site, block=0))

EVERYWHERE: dict[str, tuple[str, Mutant]] = {
    "tome: CLS unprotected": ("tome", unprotected),
    "tome: queries for keys": ("tome", queries),
    "tome: values for keys": ("tome", values),
    "tome: shifted split": ("tome", shifted_split),
    "tome: no log size in attention": ("tome", not_proportional),
    "pitome: CLS unprotected": ("pitome", unprotected),
    "pitome: queries for keys": ("pitome", queries),
    "pitome: another margin": ("pitome", asking(margin=0.3)),
    "pitome: the margin of another block": ("pitome", first_block),
}
IN_STACKS = EVERYWHERE | {
    "pitome: nothing below the margin": ("pitome", asking(alpha=0.01)),
    "pitome: the paper's variant": ("pitome", asking(variant="paper")),
}
IN_FAMILIES = EVERYWHERE | {
    "pitome: no log size in attention": ("pitome", not_proportional),  # the published code has none
    "random: CLS unprotected": ("random", unprotected),
    "random: another seed": ("random", asking(seed=1)),
    "random: the same draw in every block": ("random", first_block),
}


def mutate(monkeypatch: pytest.MonkeyPatch, name: str, mutant: Mutant) -> None:
    """Let a technique's graph form make a mistake wherever it is used."""
    right = technique.load(name)
    monkeypatch.setattr(STACKS[name][0], "TECHNIQUE", dataclasses.replace(right, select=mutant(right.select)))


@pytest.fixture
def unweighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged tokens are averaged as if each stood for one."""
    right = plugins.add_functions

    def wrong(model: ir.Model) -> None:
        right(model)
        for function in model.functions.values():
            if function.name != "MergeTokens":
                continue
            size = function.inputs[1]
            uses = list(size.uses())
            ones = ir.node("Div", [size, size])
            for node, place in uses:
                node.replace_input_with(place, ones.outputs[0])
            function.insert_before(function[0], ones)

    monkeypatch.setattr(plugins, "add_functions", wrong)


@pytest.mark.parametrize("name", IN_STACKS)
def test_a_mutant_is_noticed_in_a_stack(name: str, monkeypatch: pytest.MonkeyPatch):
    of, mutant = IN_STACKS[name]
    mutate(monkeypatch, of, mutant)
    with pytest.raises(AssertionError, match=VALUES):
        check_stack(*STACKS[of][1])


@pytest.mark.parametrize("name", STACKS)
def test_nothing_is_noticed_where_nothing_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch):
    mutate(monkeypatch, name, asking())
    check_stack(*STACKS[name][1])


@pytest.mark.parametrize("name", STACKS)
def test_unweighted_merging_is_noticed_in_a_stack(name: str, unweighted: None):
    with pytest.raises(AssertionError, match=VALUES):
        check_stack(*STACKS[name][1])


def test_a_token_too_many_is_noticed_in_a_stack():
    with pytest.raises(AssertionError, match="no output has the shape"):
        check_stack(*TOME[:2], "tome:r=6")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", IN_FAMILIES)
def test_a_mutant_is_noticed_in_a_family(name: str, family: str):
    of, mutant = IN_FAMILIES[name]
    data, module = captured(family)
    reduced = reduce(data, technique.parse(f"{of}:r=5"), select=mutant(technique.load(of).select))
    with pytest.raises(AssertionError, match=CHOICE_OR_VALUES):
        compare(reduced, family, module, feeds(family, 3))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", STACKS)
def test_unweighted_merging_is_noticed_in_a_family(name: str, family: str, unweighted: None):
    data, module = captured(family)
    with pytest.raises(AssertionError, match=CHOICE_OR_VALUES):
        compare(reduce(data, technique.parse(f"{name}:r=5")), family, module, feeds(family, 3))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["tome", "pitome", "random"])
def test_a_token_too_many_is_noticed_in_a_family(name: str, family: str):
    data, module = captured(family)
    reduced = reduce(data, technique.parse(f"{name}:r=6"))
    reduced.plan = dict.fromkeys(reduced.plan, 5)
    with pytest.raises(AssertionError, match="6 tokens go, not 5"):
        compare(reduced, family, module, feeds(family, 3))


def first_rows(op: g.Emitter, table: Table, stage: Stage) -> ir.Value:
    """Tables are cut to the length of the tokens, as if those that are left had moved up."""
    ends = np.array([stage.tokens - table.cut])
    cut = op.Slice(table.value, np.array([0]), ends, np.array([table.axis - table.rank]))
    dims = list(table.value.shape or ())
    dims[table.axis - table.rank] = int(ends[0])
    return g.typed(cut, table.value.dtype, dims)


def by_rows(op: g.Emitter, stage: Stage, reach: int) -> np.ndarray:
    """Local attention measures distances among the tokens that are left."""
    return positions_far(op, dataclasses.replace(stage, positions=None), reach)


positions_far = positions._far
POSITIONS = {
    "tables cut to the first rows": ("_rows", first_rows, ("modernbert", "dinov3")),
    "distances between rows": ("_far", by_rows, ("modernbert-local", "modernbert-unmasked")),
    "nothing is out of reach": ("_far", lambda op, stage, reach: np.zeros((1, 1, 1, 1), bool), ("modernbert-local",)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "family"), [(name, family) for name in POSITIONS for family in POSITIONS[name][2]])
def test_wrong_positions_are_noticed(name: str, family: str, monkeypatch: pytest.MonkeyPatch):
    function, wrong, _ = POSITIONS[name]
    monkeypatch.setattr(positions, function, wrong)
    data, module = captured(family)
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, technique.parse("tome:r=5")), family, module, feeds(family, 3))
