"""Every one of these mistakes, made in the graph alone, must be noticed by the comparisons that tests rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

from edgetok import plugins, technique
from edgetok.exporters import pitome, tome
from edgetok.technique import Selection
from edgetok.view.site import Site
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
