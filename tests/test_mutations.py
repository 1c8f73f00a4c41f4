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

Patch = Callable[[pytest.MonkeyPatch], None]


def selecting(module: object, change: Callable[[Site], Site]) -> Patch:
    """Let a technique's graph form see another site."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        right = module.TECHNIQUE  # type: ignore[attr-defined]
        wrong = dataclasses.replace(right, select=lambda site, config: right.select(change(site), config))
        monkeypatch.setattr(module, "TECHNIQUE", wrong)

    return patch


def shifted_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd positions are merged into even ones."""
    right = tome.sets
    monkeypatch.setattr(tome, "sets", lambda prefix, tokens: right(prefix, tokens)[::-1])


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


MUTATIONS: dict[str, tuple[tuple[str, int, str], Patch | None]] = {
    "one more token goes": ((*TOME[:2], "tome:r=6"), None),
    "no log size in attention": ((*TOME[:2], "tome:r=5,proportional=false"), None),
    "CLS unprotected": (TOME, selecting(tome, lambda site: dataclasses.replace(site, prefix=0))),
    "queries for keys": (TOME, selecting(tome, lambda site: dataclasses.replace(site, key=site.query))),
    "values for keys": (TOME, selecting(tome, lambda site: dataclasses.replace(site, key=site.value))),
    "shifted split": (TOME, shifted_split),
    "no size weight": (TOME, unweighted),
    "pitome: another margin": ((*PITOME[:2], "pitome:ratio=0.85,variant=code,margin=0.3"), None),
    "pitome: nothing below the margin": ((*PITOME[:2], "pitome:ratio=0.85,variant=code,margin=0.75,alpha=0.01"), None),
    "pitome: the paper's variant": ((*PITOME[:2], "pitome:ratio=0.85,margin=0.75"), None),
    "pitome: CLS unprotected": (PITOME, selecting(pitome, lambda site: dataclasses.replace(site, prefix=0))),
    "pitome: queries for keys": (PITOME, selecting(pitome, lambda site: dataclasses.replace(site, key=site.query))),
    "pitome: no size weight": (PITOME, unweighted),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    stack, patch = MUTATIONS[name]
    if patch is not None:
        patch(monkeypatch)
    with pytest.raises((AssertionError, StopIteration)):  # other values, or no output of the right shape at all
        check_stack(*stack)


@pytest.mark.parametrize("stack", [TOME, PITOME])
def test_nothing_is_noticed_where_nothing_is_wrong(stack: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch):
    module = {"tome": tome, "pitome": pitome}[technique.parse(stack[2]).name]
    selecting(module, lambda site: site)(monkeypatch)
    check_stack(*stack)


def sound(name: str) -> Select:
    return technique.load(name).select


def at_another_site(**change: str | int) -> Callable[[str], Select]:
    """The technique sees another site; a value that is a name is taken from that place of the site."""

    def mutant(name: str) -> Select:
        def select(site: Site, config: Any) -> Selection:
            new = {key: getattr(site, value) if isinstance(value, str) else value for key, value in change.items()}
            return sound(name)(dataclasses.replace(site, **new), config)

        return select

    return mutant


def with_another_option(**change: object) -> Callable[[str], Select]:
    return lambda name: lambda site, config: sound(name)(site, dataclasses.replace(config, **change))


def not_proportional(name: str) -> Select:
    return lambda site, config: dataclasses.replace(sound(name)(site, config), proportional=False)


def with_shifted_split(name: str) -> Select:
    def select(site: Site, config: Any) -> Selection:
        with pytest.MonkeyPatch.context() as monkeypatch:  # the reference keeps the right one
            shifted_split(monkeypatch)
            return sound(name)(site, config)

    return select


IN_FAMILIES = {
    "tome: CLS unprotected": ("tome", at_another_site(prefix=0)),
    "tome: queries for keys": ("tome", at_another_site(key="query")),
    "tome: no log size in attention": ("tome", not_proportional),
    "tome: shifted split": ("tome", with_shifted_split),
    "pitome: CLS unprotected": ("pitome", at_another_site(prefix=0)),
    "pitome: queries for keys": ("pitome", at_another_site(key="query")),
    "pitome: no log size in attention": ("pitome", not_proportional),
    "pitome: another margin": ("pitome", with_another_option(margin=0.3)),
    "pitome: the margin of another block": ("pitome", at_another_site(block=0)),
    "random: CLS unprotected": ("random", at_another_site(prefix=0)),
    "random: another seed": ("random", with_another_option(seed=1)),
    "random: the same draw in every block": ("random", at_another_site(block=0)),
}


@pytest.mark.parametrize("family", ["vit", "bert"])
@pytest.mark.parametrize("name", IN_FAMILIES)
def test_is_noticed_in_a_family(name: str, family: str):
    of, mutant = IN_FAMILIES[name]
    data, module = captured(family)
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, technique.parse(f"{of}:r=5"), select=mutant(of)), family, module, feeds(family, 3))


@pytest.mark.parametrize("family", ["vit", "bert"])
@pytest.mark.parametrize("name", ["tome", "pitome", "random"])
def test_a_token_too_many_is_noticed_in_a_family(name: str, family: str):
    data, module = captured(family)
    with pytest.raises(AssertionError, match="6 tokens go, not 5"):
        compare(reduce(data, technique.parse(f"{name}:r=5"), more=1), family, module, feeds(family, 3))


@pytest.mark.parametrize("family", ["vit", "bert"])
@pytest.mark.parametrize("name", ["tome", "pitome"])
def test_unweighted_merging_is_noticed_in_a_family(name: str, family: str, monkeypatch: pytest.MonkeyPatch):
    unweighted(monkeypatch)
    data, module = captured(family)
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, technique.parse(f"{name}:r=5")), family, module, feeds(family, 3))
