"""flashvid: what is chosen in a frame, trees along time, and what becomes of the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import edgetok
from edgetok import technique
from edgetok.errors import Refusal, UsageError
from edgetok.exporters import flashvid
from edgetok.exporters._trees import grow, grown
from edgetok.technique import Selection
from edgetok.view.site import Site
from tests import families
from tests.alone import reduced, state, written
from tests.comparison import compare, reduce
from tests.families import captured
from tests.test_golden import arrays


def chosen(hidden: torch.Tensor, attention: torch.Tensor, keep: int, **options: Any) -> tuple[list[int], list[int]]:
    """The places kept of a video (frames, patches, C), and for each of its tokens the place it ends in; -1: nowhere."""
    seen = state(hidden.reshape(1, -1, hidden.shape[2]), memory=attention.reshape(1, -1, 1))
    out = reduced("flashvid", seen, seen.hidden.shape[1] - keep, frames=len(hidden), **options)
    stay, gone = out.choice.order[0, :keep], out.choice.order[0, keep:]
    ends = torch.full((seen.hidden.shape[1],), -1)
    ends[stay] = stay
    if out.choice.destination is not None:
        ends[gone] = stay[out.choice.destination[0]]
    return stay.tolist(), ends.tolist()


def turned(*degrees: float) -> torch.Tensor:
    """(n, 2) tokens of length one: their cosine is that of the angle between them."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


VIDEO = torch.stack([turned(0, 20, 90), turned(85, 30, 12), turned(88, 32, 15)])  # places 0-2, 3-5, 6-8
ATTENTION = torch.tensor([[0.5, 0.2, 0.3], [0.3, 0.2, 0.5], [0.3, 0.2, 0.5]])


def test_by_hand():
    # One token of each frame is chosen. Attention times the product with the mean of all nine, the highest set to 1:
    #   1.00 0.49 0.51 | 0.48 0.45 1.00 | 0.45 0.44 1.00, times the distance (1 - cosine) to the nearest in the frame,
    #   0.06 0.06 0.66 | 0.43 0.05 0.05 | 0.44 0.04 0.04: the highest are those at 90, 85 and 88 degrees: 2, 3 and 6.
    assert flashvid.Config(frames=3, selected=0.6).split(5) == (1, 2)
    # Of the others 4 (30 degrees) and 5 (12) hang on 1 (20), 7 (32) on 4, 8 (15) on 5: one tree of five tokens. Token 0
    # is alone. Two trees may stay: these.
    kept, ends = chosen(VIDEO, ATTENTION, 5, selected=0.6)
    assert kept == [0, 1, 2, 3, 6]
    assert ends == [0, 1, 2, 3, 1, 1, 6, 1, 1]


def test_a_tree_that_does_not_stay_goes_into_the_nearest():
    kept, ends = chosen(VIDEO, ATTENTION, 4, selected=0.6)  # one tree may stay
    assert kept == [1, 2, 3, 6]
    assert ends == [1, 1, 2, 3, 1, 1, 6, 1, 1]


def test_below_the_threshold():
    # cos 10 degrees is 0.985: token 4 is a root, of two tokens; {1, 5, 8} is a tree of three, and 0 is nearest to it
    kept, ends = chosen(VIDEO, ATTENTION, 5, selected=0.6, threshold=0.99)
    assert kept == [1, 2, 3, 4, 6]
    assert ends == [1, 1, 2, 3, 4, 1, 6, 4, 1]


def test_another_scene():
    # No two means are that much alike: no links. Attention decides: 0.5 at 0, 5 and 8, and the lower index is first.
    kept, ends = chosen(VIDEO, ATTENTION, 5, selected=0.6, cut=1.0)
    assert kept == [0, 2, 3, 5, 6]
    assert ends == [0, 5, 2, 3, 5, 5, 6, 5, 5]  # 20, 30, 32 and 15 degrees are nearer to 12 than to 0


def test_the_weakest_link_breaks_where_more_may_stay():
    nearly_still = torch.stack([turned(0, 20, 90), turned(1, 22, 90), turned(4, 26, 90)])
    attention = ATTENTION[:1].expand(3, -1)
    # Two trees, {0, 3, 6} and {1, 4, 7}. Three of nine go, so the last of four links breaks: 4 degrees, from 7 to 4.
    kept, ends = chosen(nearly_still, attention, 6, selected=0.3)
    assert kept == [0, 1, 2, 5, 7, 8] and ends == [0, 1, 2, 0, 1, 5, 0, 7, 8]
    # Five go, and one tree stays. They are of one size: the class token attends to 0 more than to 1.
    kept, ends = chosen(nearly_still, attention, 4, selected=0.3)
    assert kept == [0, 2, 5, 8] and ends == [0, 0, 2, 0, 0, 5, 0, 0, 8]


def test_all_chosen_leaves_no_tree():
    kept, ends = chosen(VIDEO, ATTENTION, 6, selected=1.0)
    assert len(kept) == 6 and [end for end in ends if end >= 0] == kept  # the others are dropped


@pytest.mark.parametrize("patches", [5, 7])
def test_odd_counts(patches: int):
    draw = torch.Generator().manual_seed(patches)
    video = torch.randn(3, patches, 4, generator=draw) + 1
    for share in range(1, patches):
        kept, ends = chosen(video, torch.rand(3, patches, generator=draw), 3 * share, threshold=0.3, cut=0.0)
        assert len(kept) == 3 * share and set(ends) - {-1} == set(kept)


def test_a_single_picture():
    """No links: what is chosen, then what the class token attends to, and the rest in the nearest of these."""
    kept, ends = chosen(VIDEO[:1], ATTENTION[:1], 2)
    assert kept == [0, 2] and ends == [0, -1, 2]  # both are chosen: 0.7 of 2, rounded up
    kept, ends = chosen(VIDEO[:1], ATTENTION[:1], 2, selected=0.5)
    assert kept == [0, 2] and ends == [0, 0, 2]  # token 2 is chosen, token 0 has the attention


def test_chosen_as_published():
    """What is chosen in each frame, against arrays of the published code; vtc-cls, by attention alone, differs."""
    golden = arrays("flashvid_adts_k10")
    k, patches = int(golden["k"]), golden["features"].shape[1]
    kept, _ = chosen(golden["features"], golden["cls_attention"], 3 * k, selected=1.0)
    theirs = (golden["keep_idx"] + patches * torch.arange(3)[:, None]).flatten().tolist()
    assert kept == theirs
    by_attention = golden["cls_attention"].topk(k, dim=1).indices.sort(dim=1).values
    by_attention = (by_attention + patches * torch.arange(3)[:, None]).flatten().tolist()
    assert len(set(by_attention) - set(kept)) == 5  # salient tokens beside others like them are left out


def test_trees_as_published():
    """Which tokens make a tree, against the published code's arrays; it divides by its root and that one's children."""
    golden = arrays("flashvid_tsm")
    video, free = golden["video"], golden["mask"]
    patches = video.shape[1]
    root, size = grown(video, ~free, 84, float(golden["threshold"]), -1.0)
    unit = torch.nn.functional.normalize(video.reshape(1, -1, 16), dim=-1)

    def write(site: Site) -> dict[str, ir.Value | None]:
        taken = (~free).reshape(1, -1).float().numpy()
        values = [site.op.Add(np.zeros_like(array), array) for array in (unit.numpy(), taken)]
        root, size = (
            site.op.Cast(value, to=ir.DataType.FLOAT) for value in grow(site, *values, float(golden["threshold"]), -1.0)
        )
        return {"root": root, "size": size}

    got = written(state(video.reshape(1, -1, 16), crops=3), 84, write)
    assert torch.equal(got["root"].long(), root) and torch.equal(got["size"][0].long()[root[0]], size[root[0]])
    roots = root[0].unique()
    roots = roots[free.flatten()[roots]]
    wanted = [frame * patches + place for frame in range(3) for place in golden[f"idx_{frame}"].tolist()]
    assert roots.tolist() == wanted
    flat, second = video.reshape(-1, 16), slice(patches, 2 * patches)
    for place, theirs in zip(roots.tolist(), golden["tokens_0"], strict=True):
        children = int((root[0][second] == place).sum())
        tree = flat[root[0] == place]
        assert len(tree) == size[place]
        torch.testing.assert_close(tree.sum(dim=0) / (1 + children), theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("frames=0", "option frames=0: accepted is a number from 1 up"),
        ("selected=0", "option selected=0.0: accepted is a number above 0, up to 1"),
        ("selected=1.5", "option selected=1.5: accepted is a number above 0, up to 1"),
    ],
)
def test_what_is_no_option(option: str, message: str):
    with pytest.raises(UsageError, match=message):
        technique.parse(f"flashvid:keep=0.5,{option}")


@pytest.mark.parametrize(("family", "got"), [("llava", "a dynamic batch"), ("vit", "begins with the class token")])
def test_what_is_no_video_is_refused(family: str, got: str):
    with pytest.raises(Refusal, match=f"flashvid shares tokens between 4 pictures: .* frames of a video.*{got}"):
        reduce(captured(family)[0], technique.parse("flashvid:keep=0.5,frames=4"))


def test_a_panned_photograph(tmp_path: Path, photograph: Path):
    """Exported for four frames: what comes out for a tree is the mean of its tokens, and trees follow what moves."""
    from PIL import Image

    spec = "flashvid:keep=0.3,frames=4,threshold=0.7,cut=0.5,selected=0.5"
    edgetok.export("tests.families:small_llava", out=tmp_path / "out", reduce=[spec], batch=4, min_cosine=-1)
    edgetok.export("tests.families:small_llava", out=tmp_path / "all", batch=4)
    picture = np.asarray(Image.open(photograph).resize((160, 160)), np.float32) / 127.5 - 1
    frames = np.stack([picture[40:104, 40 + 8 * i : 104 + 8 * i] for i in range(4)]).transpose(0, 3, 1, 2)
    feeds = {"pixel_values": np.ascontiguousarray(frames)}  # each frame is one patch further to the right
    with edgetok.load(tmp_path / "out") as video, edgetok.load(tmp_path / "all") as whole:
        got, original = video.run(feeds), whole.run(feeds)["output"].reshape(256, -1)
    rows, places = got["token_rows"][0], got["token_positions"][0]
    assert got["output"].shape == (1, 76, 64) and (np.diff(places) > 0).all()
    means = np.stack([original[rows == row].mean(axis=0) for row in range(76)])
    np.testing.assert_allclose(got["output"][0], means, atol=1e-4)
    trees = [np.unique(np.flatnonzero(rows == row) // 64) for row in range(76)]
    assert sum(len(frames) > 1 for frames in trees) >= 10  # that reach over several frames


def unlike(site: Site, config: flashvid.Config) -> Selection[ir.Value]:
    memory = site.op.Mul(site.memory, np.float32(-1))
    return flashvid.select(dataclasses.replace(site, memory=memory), config)


def loosely(site: Site, config: flashvid.Config) -> Selection[ir.Value]:
    return flashvid.select(site, dataclasses.replace(config, threshold=0.2))


def without_links(site: Site, config: flashvid.Config) -> Selection[ir.Value]:
    return flashvid.select(site, dataclasses.replace(config, cut=2.0))


def in_another_order(site: Site, config: flashvid.Config) -> Selection[ir.Value]:
    right = flashvid.select(site, config)
    return dataclasses.replace(
        right, destination=site.op.Sub(np.array(site.tokens - site.count - 1), right.destination)
    )


@pytest.mark.parametrize("mistake", [unlike, loosely, without_links, in_another_order])
def test_is_noticed(mistake: Callable[[Site, flashvid.Config], Selection[ir.Value]]):
    data, module = captured("llava", 4)
    spec = technique.parse("flashvid:keep=0.3,frames=4")
    with pytest.raises(AssertionError, match="other tokens are chosen"):
        compare(reduce(data, spec, select=mistake), "llava", module, families.feeds("llava", 4))
