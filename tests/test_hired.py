"""hired: budgets for the crops of a picture, and the tokens within them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import hired
from edgetok.exporters._crops import under
from edgetok.technique import Selection, State
from edgetok.view.site import Site
from tests import families
from tests.alone import kept, state
from tests.comparison import compare, reduce
from tests.families import captured
from tests.test_golden import arrays


def remembered(early: torch.Tensor, late: torch.Tensor) -> State:
    """Of (P, N) scores each: P pictures in a row."""
    return state(memory=torch.stack([early.flatten(), late.flatten()], dim=1)[None])


def test_by_hand():
    # Pictures of 2 x 2 patches: a thumbnail (places 0 to 3) and 2 crops side by side (4 to 7, 8 to 11).
    early = torch.zeros(3, 4)
    early[0] = torch.tensor([0.1, 0.3, 0.2, 0.4])  # the left column, under the first crop: 0.3; the right one: 0.7
    late = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    # 8 stay. The thumbnail has half: all 4. Of 4 the crops get 1.2 and 2.8, that is 1 and 2: token 7; tokens 8 and 9.
    # One is over: the best that is left is token 6, at 0.3.
    assert kept("hired", remembered(early, late), 8, grid="1x2") == [[0, 1, 2, 3, 6, 7, 8, 9]]
    # With 6, the thumbnail has 3: tokens 1 to 3. Of 3 the crops get 0 and 2, and the one over goes to token 7.
    assert kept("hired", remembered(early, late), 6, grid="1x2") == [[1, 2, 3, 7, 8, 9]]
    # Nearly all on the right: of 4 the crops get 0.8 and 3.2, that is 0 and 3, and the one over is token 7 again.
    early[0] = torch.tensor([0.1, 0.4, 0.1, 0.4])
    assert kept("hired", remembered(early, late), 8, grid="1x2") == [[0, 1, 2, 3, 7, 8, 9, 10]]
    # The published code: the best half of the thumbnail is patches 1 and 3, one in each strip (0 and 1; 2 and 3): 2, 2.
    assert kept("hired", remembered(early, late), 8, grid="1x2", variant="code") == [[0, 1, 2, 3, 6, 7, 8, 9]]


def test_equal_scores_fall_to_the_first():
    assert kept("hired", remembered(torch.ones(3, 4), torch.ones(3, 4)), 6, grid="1x2") == [[0, 1, 2, 4, 5, 8]]


def test_nothing_left_for_the_crops_to_lose():
    """Nearly all stay: the crops are full, and the thumbnail takes the rest."""
    seen = remembered(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4))
    assert kept("hired", seen, 11, grid="1x2", alpha=0.1) == [[0, 1, 2, *range(4, 12)]]
    assert kept("hired", seen, 3, grid="1x2", alpha=1.0) == [[0, 1, 2]]


def test_where_the_thumbnail_lies_under_crops():
    # 3 x 3 patches under 2 x 2 crops: the middle ones belong to the crop that holds their middle, the second
    assert under(3, "2x2").argmax(axis=1).reshape(3, 3).tolist() == [[0, 1, 1], [2, 3, 3], [2, 3, 3]]
    assert under(4, "2x2").sum(axis=0).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("case", ["sq2x2", "sq2x2_topright", "wide1x3", "sq2x2_r10"])
def test_published_code(case: str):
    golden = arrays("hired")
    early, late = (golden[f"{case}_cls_rows_layer{block}"].mean(dim=1) for block in (0, 22))
    grid = "x".join(map(str, golden[f"{case}_grid_rows_cols"].tolist()))
    keep = int(early.numel() * round(float(golden[f"{case}_rate"]), 3))
    config = hired.Config(grid=grid, variant="code")
    budgets = hired.shares(early[0], config.split(keep, 576)[1], 24, config)
    assert budgets.tolist() == golden[f"{case}_sub_budgets"].tolist()
    (stay,) = kept("hired", remembered(early, late), keep, grid=grid, variant="code")
    theirs = set(golden[f"{case}_keep_mask"].flatten().nonzero()[:, 0].tolist())
    over = set(stay) - theirs
    assert theirs <= set(stay) and len(over) == keep - len(theirs)  # rounded down there, filled up here
    left = late.flatten().clone()
    left[sorted(theirs)] = left[:576] = -1
    assert over == set(left.topk(len(over)).indices.tolist())


def test_the_papers_shares():
    """What is in the top right of the picture, so that the second crop shows it, gives tokens to the second crop."""
    golden = arrays("hired")
    told = golden["sq2x2_topright_cls_rows_layer0"][0].mean(dim=0)
    paper, code = (hired.shares(told, 288, 24, hired.Config(grid="2x2", variant=v)) for v in ("paper", "code"))
    assert paper.argmax() == 1 and paper[1] > 2 * paper[[0, 2, 3]].max()
    assert code.tolist() == [94, 92, 51, 51]  # the upper two strips


def test_a_picture_without_crops():
    golden = arrays("hired")
    late = golden["llava15_cls_rows_layer22"].mean(dim=1)[..., None]
    (stay,) = kept("hired", state(memory=late), 115)
    assert stay == np.flatnonzero(golden["llava15_keep_mask"]).tolist()


def test_vtc_cls_and_cls_topk_and_hired_choose_differently():
    """On one picture: hired reads the last block alone, vtc-cls sums several, cls-topk prunes within a block."""
    data, _ = captured("llava")
    feeds = families.feeds("llava", 1)
    specs = ("hired:keep=0.25", "vtc-cls:keep=0.25")
    by_last, by_sum = (reduce(data, technique.parse(spec)).run(feeds)[0]["token_positions"][0] for spec in specs)
    assert set(by_last.tolist()) != set(by_sum.tolist())
    outputs, (choice,) = reduce(data, technique.parse("cls-topk:r=48,layers=0,fuse=false")).run(feeds)
    pruned = set((choice.order[0, 1:17] - 1).tolist())  # what block 0's class token attends to, still 64 tokens outside
    assert outputs["output"].shape == (1, 64, 64) and pruned not in (set(by_last.tolist()), set(by_sum.tolist()))
    # with crops, tokens of one picture compete with those of the others
    crops, _ = captured("llava", 5)
    feeds = families.feeds("llava", 5)
    shared = reduce(crops, technique.parse("hired:keep=0.25,grid=2x2")).run(feeds)[0]["token_positions"][0]
    apart = reduce(crops, technique.parse("hired:keep=0.25")).run(feeds)[0]["token_positions"]
    assert len(shared) == apart.numel() == 80 and (shared < 64).sum() == 40
    assert set(shared.tolist()) != set((apart + 64 * torch.arange(5)[:, None]).flatten().tolist())


def strips(site: Site, config: hired.Config) -> Selection[ir.Value]:
    return hired.select(site, dataclasses.replace(config, variant="code"))


def swapped(site: Site, config: hired.Config) -> Selection[ir.Value]:
    memory = site.op.Gather(site.memory, np.array([1, 0]), axis=2)
    return hired.select(dataclasses.replace(site, memory=memory), config)


def larger_thumbnail(site: Site, config: hired.Config) -> Selection[ir.Value]:
    return hired.select(site, dataclasses.replace(config, alpha=0.6))


@pytest.mark.parametrize("mistake", [strips, swapped, larger_thumbnail])
def test_is_noticed(mistake):
    data, module = captured("llava", 5)
    reduced = reduce(data, technique.parse("hired:keep=0.25,grid=2x2"), select=mistake)
    with pytest.raises(AssertionError, match="other tokens are chosen"):
        compare(reduced, "llava", module, families.feeds("llava", 5))


@pytest.mark.parametrize(
    ("family", "batch", "got"),
    [
        ("llava", None, "got a dynamic batch; give --batch 5"),
        ("llava", 3, "got a batch of 3; give --batch 5"),
        ("clip-vision", 5, "got a batch of 5, an output that begins with the class token; .* cuts the class token off"),
    ],
)
def test_crops_that_do_not_fit_are_refused(family: str, batch: int | None, got: str):
    with pytest.raises(Refusal, match=f"hired shares tokens between 5 pictures: .*{got}"):
        reduce(captured(family, batch)[0], technique.parse("hired:keep=0.25,grid=2x2"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("grid=2", "option grid='2': accepted are the rows and columns of crops, such as 2x2 or 1x3"),
        ("grid=0x2", "option grid='0x2'"),
        ("alpha=2", "option alpha=2.0: accepted is a number from 0 to 1"),
        ("variant=both", "option variant='both': accepted are paper and code"),
    ],
)
def test_options_that_are_none(options: str, message: str):
    with pytest.raises(UsageError, match=message):
        technique.parse(f"hired:keep=0.25,{options}")


def test_blocks_that_are_not_there():
    with pytest.raises(UsageError, match="hired reads blocks 22, and the model has blocks 0-2: name them with first="):
        reduce(captured("llava")[0], technique.parse("hired:keep=0.25,last=22"))
    with pytest.raises(UsageError, match="hired reads blocks 2 and then 1, and the model has blocks 0-2"):
        reduce(captured("llava", 5)[0], technique.parse("hired:keep=0.25,grid=2x2,first=2,last=1"))
