"""flowcut: running scores of how much of the class token's information flows through a patch."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.exporters import flowcut
from edgetok.technique import State
from edgetok.view.site import Site
from tests import families
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured


def looking(row: list[float], values: list[list[float]], memory: torch.Tensor | None = None) -> State:
    """One head, whose class token attends by `row` to the tokens with these values."""
    value, attention = torch.tensor([values], dtype=torch.float32), torch.tensor(row).expand(1, 1, len(row), -1)
    return state(value, attention=attention, values=value[:, None], prefix=1, blocks=4, memory=memory)


def test_by_hand():
    # The class token (value 1, 0) attends to itself by 0.2 and to three patches by 0.4, 0.3, 0.1, shares 4/8, 3/8, 1/8.
    # Its value times theirs is 0, 0, log 2: the softmax, without itself, is 1 : 1 : 2, shares 1/4, 1/4, 1/2.
    # The L1 norms of their values are 1, 2 and log 2: scores (4/8 + 1/4) 1, (3/8 + 1/4) 2, (1/8 + 1/2) log 2.
    log2 = float(np.log(2))
    before = looking([0.2, 0.4, 0.3, 0.1], [[1, 0], [0, 1], [0, -2], [log2, 0]])
    first = flowcut.observed(before, None, flowcut.Config())
    wanted = torch.tensor([0.75, 1.25, 0.625 * log2])
    torch.testing.assert_close(first[0, 1:, 0], wanted)
    # In the next block all three are alike but for what the class token attends to: scores 2/3, 2/3, 2/3 + 1/2 - 1/3.
    after = looking([0.2, 0.2, 0.2, 0.4], [[1, 0], [0, 1], [0, 1], [0, 1]])
    running = flowcut.observed(after, first, flowcut.Config())
    new = torch.tensor([0.25 + 1 / 3, 0.25 + 1 / 3, 0.5 + 1 / 3])
    torch.testing.assert_close(running[0, 1:, 0], (wanted + new) / 2)
    # 0.667, 0.917 and 0.633: of two patches that stay, patch 3 is not one, though it is the best in this block
    out = reduced("flowcut", dataclasses.replace(after, memory=running), 1)
    assert out.stay == [[0, 1, 2]] and out.gone == [[3]] and out.choice.dropped == 1
    now = flowcut.observed(after, first, flowcut.Config(past=0.0))
    out = reduced("flowcut", dataclasses.replace(after, memory=now), 1)
    assert out.stay == [[0, 1, 3]] and out.gone == [[2]]


def test_equal_scores_fall_to_the_first():
    even = looking([0.25] * 4, [[1, 0]] + [[0, 1]] * 3)
    score = flowcut.observed(even, None, flowcut.Config())
    out = reduced("flowcut", dataclasses.replace(even, memory=score), 2)
    assert out.stay == [[0, 1]] and out.gone == [[2, 3]]


def test_what_goes_is_gone_from_what_the_block_before_gave_out():
    """The tokens that stay leave block 1 whole, and blocks 2 and 3 see nothing else."""
    data, module = captured("vit")
    feeds = families.feeds("vit", 1)
    got, (choice,) = reduce(data, technique.parse("flowcut:r=40,layers=2")).run(feeds)
    stay = choice.order[0, :25]
    assert stay.tolist() == sorted(stay.tolist()) and stay[0] == 0
    blocks = [block for name, block in module.named_modules() if re.search(r"layers?\.[23]$", name)]
    with torch.no_grad():
        hidden = module(**feeds, output_hidden_states=True).hidden_states[2][:, stay]
        for block in blocks:
            hidden = block(hidden)
        wanted = module.layernorm(hidden)
    torch.testing.assert_close(got["last_hidden_state"][:, stay], wanted, rtol=0, atol=1e-4)


def test_chooses_other_tokens_than_its_sibling():
    """cls-topk asks this block's attention alone; flowcut the values too, and the blocks before."""
    data, _ = captured("vit")
    feeds = families.feeds("vit", 1)
    specs = ("flowcut:r=40,layers=2", "cls-topk:r=40,layers=1,fuse=false")  # behind block 1, and within it
    ours, theirs = (reduce(data, technique.parse(spec)).run(feeds)[1][0].order[0, :25] for spec in specs)
    assert set(ours.tolist()) != set(theirs.tolist())


def test_nothing_is_seen_in_front_of_the_first_block():
    with pytest.raises(UsageError, match="flowcut has seen nothing in front of block 0: .* layers=2/4/6"):
        reduce(captured("vit")[0], technique.parse("flowcut:r=4"))
    with pytest.raises(UsageError, match="option past=1.0: accepted is a number from 0 to below 1"):
        technique.parse("flowcut:r=4,past=1")


def without_values(site: Site, memory: ir.Value | None, config: flowcut.Config) -> ir.Value:
    return flowcut.observe(dataclasses.replace(site, value=site.key), memory, config)


def without_past(site: Site, memory: ir.Value | None, config: flowcut.Config) -> ir.Value:
    return flowcut.observe(site, None, config)


@pytest.mark.parametrize("mistake", [without_values, without_past])
def test_is_noticed(mistake, monkeypatch: pytest.MonkeyPatch):
    observe = dataclasses.replace(flowcut.TECHNIQUE.observe, graph=mistake)
    monkeypatch.setattr(flowcut, "TECHNIQUE", dataclasses.replace(flowcut.TECHNIQUE, observe=observe))
    data, module = captured("vit")
    reduced = reduce(data, technique.parse("flowcut:r=20,layers=2"))
    with pytest.raises(AssertionError, match="other tokens are chosen"):
        compare(reduced, "vit", module, families.feeds("vit", 3))
