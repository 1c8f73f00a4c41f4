"""ficoco: what is let go and who takes it in; the first step of the published code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.exporters import ficoco
from edgetok.technique import State
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.test_golden import arrays


def small(**given: torch.Tensor) -> State:
    """A class token that attends to its patches by 3, 0 and 4; these give 3, 0 and 4 to the sum (7, 3) of the keys."""
    queries = torch.tensor([[1.0, 0], [0, 1], [0, 0], [0, 4 / 3]])[None, None]
    keys = torch.tensor([[9.0, 9], [3, 0], [0, 3], [4, 0]])[None, None]
    hidden = torch.tensor([[[10.0], [1], [2], [4]]])
    return state(hidden, prefix=1, queries=queries, keys=keys, values=keys, **given)


def test_a_patch_is_taken_in():
    """At length one (.6, 0, .8) is seen, and as much is given: worth -.3 (.6, 0, .8). The third patch, which is least
    worth, attends to the first by 0 and to the second by 4: that becomes (2 + 4) / 2, whatever the sizes are."""
    out = reduced("ficoco", small(size=torch.tensor([[[1.0], [1], [3], [1]]])), 1)
    assert out.stay == [[0, 1, 2]] and out.gone == [[3]] and out.choice.destination.tolist() == [[2]]
    assert out.hidden.flatten().tolist() == [10, 1, 3] and out.size.flatten().tolist() == [1, 1, 4]


def test_the_class_tokens_attention_alone_chooses_otherwise():
    """cls-topk lets the second patch go, which the class token does not see."""
    assert reduced("cls-topk", small(), 1, fuse=False).gone == [[2]]
    assert reduced("ficoco", small(), 1, balance=1).gone == [[2]]


def test_windows_spread_what_goes():
    """4 x 4 patches of worth -1 to -16, but for a factor: the left of two columns of windows holds the lowest."""
    worth = torch.tensor([[9.0, 16, 1, 2], [11, 12, 3, 4], [10, 15, 5, 6], [13, 14, 7, 8]]).flatten()
    queries = torch.zeros(1, 1, 17, 1)
    queries[0, 0, 1:, 0] = worth
    seen = state(torch.zeros(1, 17, 1), prefix=1, queries=queries, keys=torch.ones(1, 1, 17, 1))
    # The least of each window counts double: 16, 15, 8 (as 16 would) and 4 (as 8). So 16, 15 and 8 go, not 14.
    assert reduced("ficoco", seen, 3, balance=0).gone == [[16, 10, 2]]
    assert reduced("ficoco", seen, 3, balance=0, windows=False).gone == [[14, 10, 2]]


def test_windows_are_those_of_the_original_grid():
    """Of 4 x 4 patches the middle rows went: 0 and 1 share a window, so do 12 and 13."""
    queries = torch.zeros(1, 1, 9, 1)
    queries[0, 0, 1:, 0] = torch.tensor([10.0, 9, 1, 1, 8, 8.5, 2, 2.5])
    positions = torch.tensor([[0, 1, 2, 3, 4, 13, 14, 15, 16]])
    seen = state(
        torch.zeros(1, 9, 1), prefix=1, queries=queries, keys=torch.ones(1, 1, 9, 1), positions=positions, original=17
    )
    assert reduced("ficoco", seen, 2, balance=0).gone == [[6, 1]]  # 8.5 counts double, 9 does not
    assert ficoco.window_of(9)[:, 0].tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]  # an odd side


def test_padding_goes_first_and_is_taken_in_by_nobody():
    size = torch.tensor([[[1.0], [1], [0], [1]]])
    out = reduced("ficoco", small(size=size), 1)
    assert out.stay == [[0, 1, 3]] and out.gone == [[2]]
    assert out.choice.weight.flatten().tolist() == [1, 1, 0, 1]


def test_ties_let_the_higher_index_go():
    seen = state(torch.ones(1, 6, 2), prefix=1)
    out = reduced("ficoco", seen, 2, windows=False)
    assert out.stay == [[0, 1, 2, 3]] and out.gone == [[4, 5]] and out.choice.destination.tolist() == [[1, 1]]


def test_arrays():
    """Filter and Correlate of the published code, from a fresh map: the same tokens go, in the same order; where its
    first target is a patch that stays, it is ours."""
    golden = arrays("ficoco_v")
    heads = {"queries": golden["s1_q"][None, None], "keys": golden["s1_k"][None, None]}
    got = reduced("ficoco", state(golden["x0"], prefix=1, **heads), 42).choice
    assert got.order[0, -42:].flip(0).tolist() == golden["s1_merge"].tolist()
    stay = got.order[0, 1:535]
    assert torch.equal(stay, stay.sort().values)
    into, theirs = got.order[0][got.destination[0]].flip(0), golden["s1_targets"][:, 0].long()
    possible = torch.isin(theirs, stay)
    assert possible.sum() == 35 and torch.equal(into[possible], theirs[possible])


def test_balance_is_a_share():
    with pytest.raises(UsageError, match="option balance=2: accepted is a share from 0 to 1"):
        technique.parse("ficoco:r=1,balance=2")


def at(**change: object):
    return lambda site, config: ficoco.select(dataclasses.replace(site, **change), config)


def by(**change: object):
    return lambda site, config: ficoco.select(site, dataclasses.replace(config, **change))


MISTAKES = {
    "queries and keys exchanged": lambda site, config: at(query=site.key, key=site.query)(site, config),
    "the class token competes": at(prefix=0),
    "no windows": by(windows=False),
    "another balance": by(balance=0.65),
    "windows of the places now": lambda site, config: at(positions=site.per_sample(np.arange(site.tokens)))(
        site, config
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name: str):
    data, module = captured("vit")
    with pytest.raises(AssertionError, match="other tokens are chosen|error|destination"):
        reduced = reduce(data, technique.parse("ficoco:r=5"), select=MISTAKES[name])
        compare(reduced, "vit", module, feeds("vit", 3))
