"""hiprune: anchors, their neighbours, and the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import hiprune
from edgetok.technique import Selection, State
from edgetok.transform import transform
from edgetok.view.site import Site
from tests import families
from tests.alone import kept, state
from tests.comparison import compare, reduce
from tests.families import captured
from tests.test_golden import arrays


def remembered(shallow: list[float], deep: list[float]) -> State:
    return state(memory=torch.tensor([shallow, deep]).T[None])


def test_by_hand():
    #  places     0  1  2  3      the anchor: 4, the first patch of a row; its neighbours are 0, 5 and 8
    #             4  5  6  7      (and, in the published code, 3, the patch before it)
    #             8  9 10 11
    #            12 13 14 15
    shallow, deep = [0.0] * 16, [0.01 * place for place in range(16)]
    shallow[4] = 1.0
    seen = remembered(shallow, deep)  # 5 stay: the anchor, its 3 neighbours, and one more by the deep scores
    assert kept("hiprune", seen, 5, alpha=1.0) == [[0, 4, 5, 8, 15]]
    assert kept("hiprune", seen, 5, alpha=1.0, variant="code") == [[0, 3, 4, 5, 8]]
    assert kept("hiprune", seen, 5, alpha=0.0) == [[11, 12, 13, 14, 15]]  # no anchor: the deep scores alone


def test_neighbours_at_the_rim():
    def near(place: int, variant: str) -> list[int]:
        return sorted(set(hiprune.Config(variant=variant).neighbours(4)[place].tolist()))

    assert near(0, "paper") == near(0, "code") == [0, 1, 4]  # above and left of it is, clamped, itself
    assert near(3, "paper") == [2, 3, 7] and near(3, "code") == [0, 2, 3, 4, 7]
    assert near(13, "paper") == [9, 12, 13, 14] and near(13, "code") == [9, 12, 13, 14, 15]
    assert near(10, "paper") == near(10, "code") == [6, 9, 10, 11, 14]


def test_behind_a_class_token_and_between_equal_scores():
    memory = torch.cat([torch.full((1, 1, 2), 9.0), torch.zeros(1, 9, 2)], dim=1)  # a grid of 3 x 3 behind CLS
    seen = state(memory=memory, prefix=1)
    # one anchor, the first patch, token 1; its neighbours 2 and 4; then the lowest places
    assert kept("hiprune", seen, 6, alpha=1.0) == [[0, 1, 2, 3, 4, 5]]
    assert kept("hiprune", seen, 4, alpha=1.0) == [[0, 1, 2, 4]]


@pytest.mark.parametrize("case", ["r192", "r128", "r64_edge", "r160_B5"])
def test_published_code(case: str):
    golden = arrays("hiprune_llava")
    seen = torch.stack([golden[f"{case}_shallow_colmean"], golden[f"{case}_deep_colmean"]], dim=2)
    keep, alpha = int(golden[f"{case}_retention_total"]) // len(seen), round(float(golden[f"{case}_alpha"]), 3)
    got = kept("hiprune", state(memory=seen), keep, alpha=alpha, variant="code")
    assert got == [np.flatnonzero(mask).tolist() for mask in golden[f"{case}_keep_mask"]]


def test_chooses_other_tokens_than_its_siblings():
    """vtc-cls asks the class token alone; hiprune all tokens, and keeps what is around an anchor."""
    data, _ = captured("llava")
    feeds = families.feeds("llava", 1)
    specs = ("hiprune:keep=0.25,shallow=1,alpha=0.5", "vtc-cls:keep=0.25,first=2")
    ours, theirs = (reduce(data, technique.parse(spec)).run(feeds)[0]["token_positions"] for spec in specs)
    assert set(ours[0].tolist()) != set(theirs[0].tolist())


def swapped(site: Site, config: hiprune.Config) -> Selection[ir.Value]:
    memory = site.op.Gather(site.memory, np.array([1, 0]), axis=2)
    return hiprune.select(dataclasses.replace(site, memory=memory), config)


def wrapped(site: Site, config: hiprune.Config) -> Selection[ir.Value]:
    return hiprune.select(site, dataclasses.replace(config, variant="code"))


def without_anchors(site: Site, config: hiprune.Config) -> Selection[ir.Value]:
    return hiprune.select(site, dataclasses.replace(config, alpha=0.0))


@pytest.mark.parametrize("mistake", [swapped, wrapped, without_anchors])
def test_is_noticed(mistake):
    data, module = captured("llava")
    reduced = reduce(data, technique.parse("hiprune:keep=0.5,shallow=1,alpha=1.0"), select=mistake)
    with pytest.raises(AssertionError, match="other tokens are chosen"):
        compare(reduced, "llava", module, families.feeds("llava", 3))


def test_what_it_refuses():
    data, _ = captured("llava")
    with pytest.raises(UsageError, match="reads block 8 and then block -1, and the model has blocks 0-2: name them"):
        reduce(data, technique.parse("hiprune:keep=0.5"))
    with pytest.raises(UsageError, match="reads block 2 and then block 1"):
        reduce(data, technique.parse("hiprune:keep=0.5,shallow=2,deep=1"))
    with pytest.raises(UsageError, match="option variant='codes': accepted are paper and code"):
        hiprune.Config(variant="codes")
    with pytest.raises(UsageError, match="option alpha=1.5: accepted is a number from 0 to 1"):
        hiprune.Config(alpha=1.5)
    with pytest.raises(Refusal, match="are 50, the square of no number; give it all patches of a square picture"):
        reduce(captured("whisper")[0], technique.parse("hiprune:keep=0.5,shallow=1"))
    both = [technique.parse(spec) for spec in ("tome:r=28,layers=1", "hiprune:keep=0.5,shallow=1")]
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    with pytest.raises(Refusal, match="the tokens behind the prefix were reduced before"):  # 36 are square, but no grid
        transform(model, both, dtype="fp32", emit="full")
