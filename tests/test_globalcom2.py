"""globalcom2: the thumbnail commands the crops."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import globalcom2
from edgetok.technique import Selection, State
from edgetok.view.site import Site
from tests import families
from tests.alone import kept, state
from tests.comparison import compare, reduce
from tests.families import captured
from tests.test_golden import arrays


def remembered(*pictures: list[float]) -> State:
    return state(memory=torch.tensor(pictures, dtype=torch.float32).reshape(1, -1, 1))


def test_by_hand():
    # Pictures of 2 x 2 patches: a thumbnail (places 0 to 3) and 2 crops side by side (4 to 7, 8 to 11).
    # Under the first crop lies the thumbnail's left column: 3 + 3; under the second one 1 + 1.
    seen = remembered([3, 1, 3, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    # 6 of 12 stay, a share of 1/2: 2 of the thumbnail. At temperature 1, p = 0.98 and 0.02: the shares are 0.74 and
    # 0.26, that is 2 tokens and 1, and one is over.
    torch.testing.assert_close(
        globalcom2.scales(torch.tensor([3.0, 1, 3, 1]), 0.5, 2, globalcom2.Config(grid="1x2", temperature=1.0)),
        torch.tensor([0.7410, 0.2590]), atol=1e-4, rtol=0,
    )  # fmt: skip
    # Stretched to twice its width, each row of the thumbnail is 3 2.5 1.5 1: the crops see 3 2.5 and 1.5 1.
    # First crop: own scores / 5.477 + thumbnail's / 5.523: 0.726 0.818 1.091 1.183: tokens 7 and 6.
    # Second:     own scores / 5.477 + thumbnail's / 2.550: 1.319 0.940 0.953 0.575: token 8.
    # One is over: the best left is token 10 (0.953); the second crop's own scores alone would name token 9.
    assert kept("globalcom2", seen, 6, grid="1x2", temperature=1.0) == [[0, 2, 6, 7, 8, 10]]
    # At a high temperature the crops are alike: 0.5 and 0.5, two tokens each, and none is over.
    assert kept("globalcom2", seen, 6, grid="1x2", temperature=1e6) == [[0, 2, 6, 7, 8, 10]]


def test_a_crop_keeps_all_of_its_tokens_at_most():
    config = globalcom2.Config(grid="1x2", temperature=0.1)
    assert globalcom2.scales(torch.tensor([3.0, 1, 3, 1]), 0.9, 2, config).tolist() == [1.0, pytest.approx(0.45)]
    seen = remembered([3, 1, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1])  # 10 stay: 3 of the thumbnail, 4 and 1, and 2 are over
    # second crop: equal scores, and the thumbnail's 1.5 1 in both rows: 8, and then 10, and of 9 and 11 the first
    assert kept("globalcom2", seen, 10, grid="1x2", temperature=0.1) == [[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]]


def test_without_crops():
    seen = torch.tensor([0.0, 3.0, -1.0, 3.0, 2.0])[None, :, None]
    assert kept("globalcom2", state(memory=seen), 3) == [[1, 3, 4]]


@pytest.mark.parametrize("case", ["sq", "wide"])
def test_published_scales(case: str):
    golden = arrays("globalcom2")
    scales = globalcom2.scales(golden[f"{case}_base_cls_logits"], 0.25, 24, globalcom2.Config(grid="2x2"))
    torch.testing.assert_close(scales, golden[f"{case}_scales"], atol=1e-6, rtol=1e-5)


def test_published_code():
    golden = arrays("globalcom2")
    logits = torch.cat([golden["sq_base_cls_logits"][None], golden["sq_crop_cls_logits"]])
    (stay,) = kept("globalcom2", state(memory=logits.reshape(1, -1, 1)), 720, grid="2x2")
    assert [place for place in stay if place < 576] == sorted(golden["sq_thumb_keep_order"].tolist())
    features = golden["sq_crop_feats"].half().reshape(-1, 4)
    theirs = {tuple(row) for row in golden["sq_out_fp16"].tolist() if row != [9.0] * 4}  # 9: a newline
    places = {tuple(features[place - 576].tolist()): place for place in stay if place >= 576}
    per_crop = golden["sq_kept_per_crop"]
    assert theirs < places.keys() and len(theirs) == per_crop.sum() == 575 and len(places) == 576
    counts = torch.tensor([places[row] for row in theirs]).div(576, rounding_mode="floor").bincount()[1:]
    assert counts.tolist() == per_crop.tolist()


def test_chooses_other_tokens_than_its_sibling():
    """hired splits in proportion to attention and ranks a crop by itself; globalcom2 adds the thumbnail's scores."""
    data, _ = captured("llava", 5)
    feeds = families.feeds("llava", 5)
    ours, theirs = (
        reduce(data, technique.parse(f"{name}:keep=0.25,grid=2x2")).run(feeds)[0]["token_positions"][0]
        for name in ("globalcom2", "hired")
    )
    assert (ours < 64).sum() == 16 and (theirs < 64).sum() == 40
    assert set(ours[16:].tolist()) != set(theirs[40:].tolist())


def colder(site: Site, config: globalcom2.Config) -> Selection[ir.Value]:
    return globalcom2.select(site, dataclasses.replace(config, temperature=1000.0))


def transposed(site: Site, config: globalcom2.Config) -> Selection[ir.Value]:
    """The crops in columns and not in rows."""
    op = site.op
    crops = op.Reshape(site.memory, np.array([site.crops, -1, 1]))
    order = op.Gather(crops, np.array([0, 1, 3, 2, 4]), axis=0)
    memory = op.Reshape(order, np.array([1, site.tokens, 1]))
    return globalcom2.select(dataclasses.replace(site, memory=memory), config)


@pytest.mark.parametrize("mistake", [colder, transposed])
def test_is_noticed(mistake):
    data, module = captured("llava", 5)
    reduced = reduce(data, technique.parse("globalcom2:keep=0.25,grid=2x2,temperature=5"), select=mistake)
    with pytest.raises(AssertionError, match="other tokens are chosen"):
        compare(reduced, "llava", module, families.feeds("llava", 5))


def test_what_it_refuses():
    with pytest.raises(UsageError, match="option temperature=0.0: accepted is a number above 0"):
        technique.parse("globalcom2:keep=0.25,temperature=0")
    with pytest.raises(UsageError, match="globalcom2 reads block 23, and the model has blocks 0-2: name one of them"):
        reduce(captured("llava")[0], technique.parse("globalcom2:keep=0.25,block=23"))
    with pytest.raises(Refusal, match="globalcom2 shares tokens between 3 pictures"):
        reduce(captured("llava")[0], technique.parse("globalcom2:keep=0.25,grid=1x2"))
