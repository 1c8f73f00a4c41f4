"""vtc-cls: what the class token attended to, summed over blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgetok.exporters import vtc_cls
from edgetok.technique import State
from tests.alone import kept, state
from tests.test_golden import arrays


def states(rows: torch.Tensor) -> list[State]:
    """States of blocks whose class token attends to the patches by (blocks, heads, N) weights, and not to itself."""
    blocks, _, patches = rows.shape
    seen = []
    for block, row in enumerate(rows):
        attention = functional.pad(row, (1, 0))[None, :, None].expand(-1, -1, 1 + patches, -1)
        hidden = torch.zeros(1, 1 + patches, 2)
        seen.append(state(hidden, attention=attention, prefix=1, block=block, blocks=blocks))
    return seen


def remembered(rows: torch.Tensor, config: vtc_cls.Config) -> torch.Tensor:
    """(1, 1 + N, 1)"""
    memory = None
    for seen in states(rows):
        memory = vtc_cls.observed(seen, memory, config)
    assert memory is not None
    return memory


def test_by_hand():
    # what the class token attends to, over 3 blocks of one head; patches are tokens 1 to 4
    rows = torch.tensor([[[0.7, 0.1, 0.1, 0.1]], [[0.1, 0.2, 0.3, 0.4]], [[0.1, 0.2, 0.5, 0.2]]])
    last_two = remembered(rows, vtc_cls.Config(first=1))  # 0.2, 0.4, 0.8, 0.6
    torch.testing.assert_close(last_two[0, :, 0], torch.tensor([0.0, 0.2, 0.4, 0.8, 0.6]))
    assert kept("vtc-cls", state(memory=last_two, prefix=1), 3) == [[0, 3, 4]]  # CLS, then by place and not by score
    every = remembered(rows, vtc_cls.Config(first=0))
    assert kept("vtc-cls", state(memory=every, prefix=1), 3) == [[0, 1, 3]]  # 0.9 .5 .9 .7
    one = remembered(rows, vtc_cls.Config(first=0, last=0))
    assert kept("vtc-cls", state(memory=one, prefix=1), 3) == [[0, 1, 2]]  # three patches at 0.1: the lowest place


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
    (stay,) = kept("vtc-cls", state(memory=memory, prefix=1), 1 + keep)
    assert [place - 1 for place in stay[1:]] == golden[f"{case}_keep_sorted"].tolist()


def test_the_default_blocks_are_the_published_ones():
    counted = [block for block in range(23) if vtc_cls.Config().counts(block, 23)]
    assert counted == [16, 17, 18, 19, 20, 21, 22]


@pytest.mark.parametrize("block", [15, 23])
def test_another_block_is_noticed(block: int):
    """One block more than the published ones chooses otherwise."""
    golden = arrays("vtc_cls")
    rows = golden["s16_t64_cls_rows"].mean(dim=1)  # (24, 576)
    right, wrong = rows[16:23].sum(dim=0), rows[[block, *range(16, 23)]].sum(dim=0)
    (a,), (b,) = (kept("vtc-cls", state(memory=score[None, :, None]), 64) for score in (right, wrong))
    assert a == golden["s16_t64_keep_sorted"].tolist() != b
