"""dart: who is a pivot, what each takes, and the arrays of its authors."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.exporters import dart
from tests.alone import state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.test_diverse import chosen, plane
from tests.test_golden import arrays

ANGLES, NORMS = [0, 10, 20, 183, 95, 50], [5.0, 9.0, 1.0, 2.0, 8.0, 3.0]


def test_one_pivot():
    """10 degrees has the largest norm; least like it are 183 (173 away) and 95 (85). divprune has 0 for 10."""
    assert chosen("dart", plane(ANGLES, NORMS), 3, pivots=1) == [1, 3, 4]
    assert chosen("divprune", plane(ANGLES), 3) == [0, 3, 4]


def test_two_pivots_in_turn():
    """Pivots 10 and 95. The first takes 183, then the second takes 0 (95 away), not 183 (88)."""
    assert chosen("dart", plane(ANGLES, NORMS), 4, pivots=2) == [0, 1, 3, 4]


def test_an_odd_one_goes_to_the_first_pivot():
    """Of three to take the first pivot (10) has two: 183 and 50; the second (95) has 0."""
    assert dart.Config(pivots=2).shares(5) == [2, 1]
    assert chosen("dart", plane(ANGLES, NORMS), 5, pivots=2) == [0, 1, 3, 4, 5]


def test_fewer_tokens_than_pivots():
    assert dart.Config(pivots=8).shares(2) == [0, 0]
    assert chosen("dart", plane(ANGLES, NORMS), 2) == [1, 4]


def test_ties_take_the_lower_index():
    assert chosen("dart", plane([30] * 5, [1.0] * 5), 4, pivots=2) == [0, 1, 2, 3]


def test_prefix_stays_and_padding_is_no_pivot():
    """Token 0 is the class token; the two last are padding of large norms, and lie far from all others."""
    size = torch.tensor([1.0, 1, 1, 1, 1, 0, 0])[None, :, None]
    seen = plane([0, 1, 2, 3, 4, 180, 260], [9.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0], size=size, prefix=1)
    assert chosen("dart", seen, 4, pivots=2) == [0, 1, 2, 3, 4]


def test_there_is_a_pivot():
    with pytest.raises(UsageError, match="option pivots=0: accepted is a count from 1 on"):
        technique.parse("dart:keep=0.5,pivots=0")


@pytest.mark.parametrize("case", ["random", "clustered"])
def test_arrays(case: str):
    """The published selection, with its pivots among the text and in the order of its set."""
    golden = arrays("dart")
    unit = torch.nn.functional.normalize(golden[f"{case}_normed_state"], dim=-1)
    image = slice(35, 35 + 576)
    cosine = unit[:, golden[f"{case}_pivot_visit_order_cpython311"]] @ unit[:, image].mT
    pivots = golden[f"{case}_pivot_img"][None] - 35
    assert torch.equal(golden[f"{case}_key_l1norm"][image].topk(4).indices.sort().values, pivots[0].sort().values)
    taken = dart.least_similar(cosine, pivots, [15] * 8)
    assert torch.equal(torch.cat([pivots, taken], dim=1)[0].sort().values + 35, golden[f"{case}_epic_keep"])
    memory = golden[f"{case}_key_l1norm"][None, image, None]
    assert len(chosen("dart", state(golden[f"{case}_normed_state"][:, image], memory=memory), 100)) == 100


@pytest.mark.parametrize("wrong", ["queries for keys", "the keys of another block"])
def test_a_mistake_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch):
    def observe(site, memory, config):
        if wrong == "queries for keys":
            return dart.observe(dataclasses.replace(site, key=site.query), memory, config)
        return dart.observe(site, memory, dataclasses.replace(config, block=0))

    asked, (data, module) = technique.parse("dart:keep=0.5,pivots=3"), captured("vit")
    right = technique.load("dart")
    with monkeypatch.context() as patch:
        observing = dataclasses.replace(right.observe, graph=observe)
        patch.setattr(dart, "TECHNIQUE", dataclasses.replace(right, observe=observing))
        reduced = reduce(data, asked)
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduced, "vit", module, feeds("vit", 3))
