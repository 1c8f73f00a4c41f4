"""Every one of these mistakes must be noticed by the comparison with the published code's arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx_ir as ir
import pytest

from edgetok import plugins, technique
from edgetok.exporters import pitome, tome
from edgetok.view.site import Site
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
