"""vtc-cls: what the class token attended to, summed over blocks."""

from __future__ import annotations

import pytest
import torch

from edgetok.exporters import vtc_cls
from edgetok.technique import State
from tests.selecting import arrays, chosen


def states(rows: torch.Tensor) -> list[State]:
    """States of blocks whose class token attends to the patches by (blocks, heads, N) weights, and not to itself."""
    blocks, heads, patches = rows.shape
    seen = []
    for block, row in enumerate(rows):
        keys = torch.zeros(1, heads, 1 + patches, 1)
        keys[0, :, 1:, 0] = row.log()
        bias = torch.zeros(1, 1, 1, 1 + patches)
        bias[..., 0] = float("-inf")
        queries, hidden = torch.ones_like(keys), torch.zeros(1, 1 + patches, 2)
        size = torch.ones(1, 1 + patches, 1)
        seen.append(State(hidden, size, queries, keys, keys, bias, 1.0, 1, block, blocks))
    return seen


def remembered(rows: torch.Tensor, config: vtc_cls.Config) -> torch.Tensor:
    """(1, 1 + N, 1)"""
    memory = None
    for state in states(rows):
        memory = vtc_cls.observed(state, memory, config)
    assert memory is not None
    return memory


def test_by_hand():
    # what the class token attends to, over 3 blocks of one head; patches are tokens 1 to 4
    rows = torch.tensor([[[0.7, 0.1, 0.1, 0.1]], [[0.1, 0.2, 0.3, 0.4]], [[0.1, 0.2, 0.5, 0.2]]])
    last_two = remembered(rows, vtc_cls.Config(first=1))  # 0.2, 0.4, 0.8, 0.6
    torch.testing.assert_close(last_two[0, :, 0], torch.tensor([0.0, 0.2, 0.4, 0.8, 0.6]))
    assert chosen("vtc-cls", last_two, 3, prefix=1) == [[0, 3, 4]]  # CLS, then by place and not by score
    assert chosen("vtc-cls", remembered(rows, vtc_cls.Config(first=0)), 3, prefix=1) == [[0, 1, 3]]  # 0.9 .5 .9 .7
    one = remembered(rows, vtc_cls.Config(first=0, last=0))
    assert chosen("vtc-cls", one, 3, prefix=1) == [[0, 1, 2]]  # three patches at 0.1: the lowest place


@pytest.mark.parametrize("case", ["s16_t64", "s16_t36"])
def test_published_code(case: str):
    golden = arrays("vtc_cls")
    rows = golden[f"{case}_cls_rows"][:23]  # a graph that gives out block 22 has no block 23
    config = vtc_cls.Config(first=int(golden[f"{case}_start_layer"]))
    memory = torch.zeros(1, 577, 1)
    for block, row in enumerate(rows):  # the rows do not sum to 1 without CLS, so they cannot go through `states`
        if config.counts(block, len(rows)):
            memory[0, 1:, 0] += row.mean(dim=0)
    keep = int(golden[f"{case}_token_num"])
    (places,) = chosen("vtc-cls", memory, 1 + keep, prefix=1)
    assert [place - 1 for place in places[1:]] == golden[f"{case}_keep_sorted"].tolist()


def test_the_default_blocks_are_the_published_ones():
    counted = [block for block in range(23) if vtc_cls.Config().counts(block, 23)]
    assert counted == [16, 17, 18, 19, 20, 21, 22]


@pytest.mark.parametrize("block", [15, 23])
def test_another_block_is_noticed(block: int):
    """One block more than the published ones chooses otherwise."""
    golden = arrays("vtc_cls")
    rows = golden["s16_t64_cls_rows"].mean(dim=1)  # (24, 576)
    right, wrong = rows[16:23].sum(dim=0), rows[[block, *range(16, 23)]].sum(dim=0)
    (a,), (b,) = (chosen("vtc-cls", score[None, :, None], 64) for score in (right, wrong))
    assert a == golden["s16_t64_keep_sorted"].tolist() != b
