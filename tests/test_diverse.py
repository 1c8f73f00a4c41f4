"""divprune, todre and greedyprune: points in the plane, where each must choose differently; DivPrune's arrays."""

from __future__ import annotations

import dataclasses
from math import cos, radians, sin
from typing import Any

import pytest
import torch

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.technique import State
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.test_golden import arrays


def plane(angles: list[float], attention: list[float] | None = None, **given: Any) -> State:
    """Points of different lengths, which must not count."""
    x = torch.tensor([[(1 + i % 3) * cos(radians(a)), (1 + i % 3) * sin(radians(a))] for i, a in enumerate(angles)])
    memory = {} if attention is None else {"memory": torch.tensor(attention)[None, :, None]}
    return state(x[None], **memory, **given)


def chosen(name: str, seen: State, count: int, **options: Any) -> list[int]:
    """The prefix and the `count` patches that stay; the others go nowhere."""
    out = reduced(name, seen, seen.hidden.shape[1] - seen.prefix - count, **options)
    assert out.choice.destination is None
    return out.stay[0]


def test_each_chooses_differently():
    """Six directions, of which five stay: each lets another one go.

    divprune: 183 is farthest from its nearest other (88 degrees); then always the one whose nearest chosen one is
        farthest: 0 (177), 95 (88), 50 (45), and 20 (20 from 0), not 10 (10 from 0).
    todre: 0 is attended to most; then the smallest sum of cosines: 183 (-1.00), 95 (-.09 + .03 = -.05), 10 (.98 - .99
        + .09 = .08) and 20 (.94 - .96 + .26 + .98 = 1.23), not 50 (.64 - .68 + .71 + .77 = 1.43). Tokens on
        opposite sides of many are cheap, even beside one that is kept already.
    greedyprune: 0; 10 and 20 lie within 26 degrees (cosine 0.9), so 50, 95 and 183; then the most salient of the
        rejected: 10, not 20.
    """
    angles, attention = [0, 10, 20, 183, 95, 50], [0.30, 0.20, 0.18, 0.06, 0.10, 0.15]
    assert chosen("divprune", plane(angles), 5) == [0, 2, 3, 4, 5]
    assert chosen("todre", plane(angles, attention), 5) == [0, 1, 2, 3, 4]
    assert chosen("greedyprune", plane(angles, attention), 5, tau=0.9) == [0, 1, 3, 4, 5]
    assert chosen("greedyprune", plane(angles, attention), 3, tau=0.9) == [0, 4, 5]
    assert chosen("greedyprune", plane(angles, attention), 3, tau=1) == [0, 1, 2]  # saliency alone


def test_todre_without_a_class_token_begins_with_the_odd_one_out():
    assert chosen("todre", plane([0, 10, 180, 20]), 1) == [2]


@pytest.mark.parametrize("name", ["divprune", "todre", "greedyprune"])
def test_ties_take_the_lower_index(name: str):
    """All alike: nothing but the index is left to decide."""
    memory = None if name == "divprune" else [0.2] * 5
    assert chosen(name, plane([30] * 5, memory), 3) == [0, 1, 2]


@pytest.mark.parametrize("name", ["divprune", "todre", "greedyprune"])
def test_prefix_stays_and_padding_goes_first(name: str):
    """Token 0 is the class token; the two last are padding, and lie far from all others."""
    size = torch.tensor([1.0, 1, 1, 1, 1, 0, 0])[None, :, None]
    seen = plane([0, 1, 2, 3, 4, 180, 260], [0.1, 0.1, 0.1, 0.3, 0.2, 0.0, 0.0], size=size, prefix=1)
    assert chosen(name, seen, 4) == [0, 1, 2, 3, 4]


def test_rejected_tokens_fill_up():
    """All resemble the first: the count is kept, the most salient of the rejected follow."""
    assert chosen("greedyprune", plane([0, 1, 2, 3], [0.1, 0.4, 0.2, 0.3]), 3) == [1, 2, 3]


def test_tau_is_a_cosine():
    with pytest.raises(UsageError, match="option tau=2: accepted is a cosine from -1 to 1"):
        technique.parse("greedyprune:keep=0.5,tau=2")


@pytest.mark.parametrize("case", ["clustered", "n576"])
def test_divprune_arrays(case: str):
    golden = arrays("divprune")
    x, wanted = golden[f"{case}_x"][None], sorted(golden[f"{case}_selected_order"].tolist())
    assert chosen("divprune", state(x), len(wanted)) == wanted


MISTAKES = {
    "divprune: the class token competes": ("divprune:keep=0.25", {"prefix": 0}),
    "todre: the attention is not read": ("todre:keep=0.25", {"memory": None}),
    "greedyprune: nothing is too much alike": ("greedyprune:keep=0.25,tau=0.3", {"tau": 1.0}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name: str):
    spec, change = MISTAKES[name]
    asked, (data, module) = technique.parse(spec), captured("vit")
    right = technique.load(asked.name).select

    def wrong(site, config):
        if "tau" in change:
            return right(site, dataclasses.replace(config, **change))
        return right(dataclasses.replace(site, **change), config)

    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, asked, select=wrong), "vit", module, feeds("vit", 3))
