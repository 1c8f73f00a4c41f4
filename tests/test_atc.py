"""atc: by hand in each linkage, against its published arrays, and beside what it resembles."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from edgetok import technique
from edgetok.errors import UnknownName
from edgetok.exporters import atc
from edgetok.exporters.atc import Config
from edgetok.technique import State
from edgetok.view.site import Site
from tests.alone import reduced, state
from tests.comparison import Select, compare, reduce
from tests.families import captured, feeds
from tests.test_golden import VALUES, arrays


def angles(*degrees: float, prefix: int = 1, **of: Any) -> State:
    """Tokens (1, N, 1) of the values 1, 2, 4 ..., whose keys point in these directions; the first is CLS."""
    radians = torch.tensor([degrees]) * math.pi / 180
    keys = torch.stack([radians.cos(), radians.sin()], dim=-1)[:, None]
    return state(2.0 ** torch.arange(len(degrees))[None, :, None], keys=keys, prefix=prefix, **of)


CHAIN = (90, 0, 30, 58, 78, 88, 110)  # CLS, then neighbours 30, 28, 20, 10 and 22 degrees apart


def test_by_hand():
    out = reduced("atc", angles(0, 50, 0, 10, 54, 180), 2)
    assert out.stay == [[0, 1, 2, 5]]  # each cluster in the place of its first token
    assert out.gone == [[3, 4]] and out.into == [[2, 1]]
    assert out.hidden[0, :, 0].tolist() == [1, (2 + 16) / 2, (4 + 8) / 2, 32]
    assert out.size[0, :, 0].tolist() == [1, 2, 2, 1] and out.choice.proportional


@pytest.mark.parametrize(
    ("linkage", "clusters"),
    [  # all of them unite 78-88 first
        ("single", [[1], [2, 3, 4, 5, 6]]),  # then links of 20, 22, 28
        (
            "complete",
            [[1, 2, 3], [4, 5, 6]],
        ),  # 30-58 (28; 58-88 is 30), 78-110 (32), 0-58 (58; 30-110 is 80)
        (
            "average",
            [[1, 2], [3, 4, 5, 6]],
        ),  # 58 with 78, 88 (20, 30), 0-30 (30), 110 (52, 32, 22)
    ],
)
def test_linkages(linkage: str, clusters: list[list[int]]):
    out = reduced("atc", angles(*CHAIN), 4, linkage=linkage)
    ends = dict(zip(out.gone[0], out.into[0], strict=True))
    assert out.stay == [[0, *(cluster[0] for cluster in clusters)]]
    assert ends == {token: cluster[0] for cluster in clusters for token in cluster[1:]}


def test_sizes_weight_the_mean_and_not_the_distance():
    size = torch.tensor([[1, 3, 1, 1, 1, 1.0]])[..., None]
    out = reduced("atc", angles(0, 50, 0, 10, 54, 180, size=size), 2)
    assert out.hidden[0, 1].item() == (3 * 2 + 16) / 4 and out.size[0, :, 0].tolist() == [1, 4, 2, 1]


def test_equal_distances_and_an_odd_count():
    out = reduced("atc", angles(0, 90, 90, 90, 0, 180, 0), 2)
    assert out.stay == [[0, 1, 4, 5, 6]] and out.gone == [[2, 3]] and out.into == [[1, 1]]
    assert reduced("atc", angles(0, 90, 80, 70, 0, 180, 0), 5).stay == [[0, 1]]  # one token is left


def test_padding_and_prefix():
    seen = angles(0, 50, 50, 10, 50, 30, 50, size=torch.tensor([[1, 1, 1, 1, 0, 1, 0.0]])[..., None], prefix=2)
    out = reduced("atc", seen, 1)
    assert out.gone == [[6]] and out.into == [[4]]  # padding is united first, and with padding
    out = reduced("atc", seen, 3)
    assert out.stay == [[0, 1, 2, 4]] and out.size[0, :, 0].tolist() == [1, 1, 3, 0]  # 50 is not token 1's cluster
    torch.testing.assert_close(out.hidden[0, 2, 0], torch.tensor((4 + 8 + 32) / 3))


def test_clusters_are_atcs():
    golden = arrays("atc_average_k98")
    labels = golden["labels"][0]
    out = reduced("atc", state(golden["x"], keys=golden["metric"][:, None], prefix=1), 98)
    ends = torch.arange(len(labels))
    ends[out.choice.order[0, 99:]] = torch.tensor(out.into[0])
    assert torch.equal(ends[:, None] == ends, labels[:, None] == labels)  # the same tokens are together
    rows = labels[out.choice.order[0, :99]].long()  # their clusters stand in scikit-learn's order
    torch.testing.assert_close(out.hidden[0], golden["x_merged"][0, rows], rtol=0, atol=VALUES)
    assert torch.equal(out.size[0], golden["size_out"][0, rows])
    print(f"largest error {(out.hidden[0] - golden['x_merged'][0, rows]).abs().max():.1e}")


def test_paper_schedule():
    """196 patches at 0.7 in blocks 3, 6 and 9: 137, 96 and 67 are left."""
    spec = technique.parse("atc:r=59/41/29,layers=3/6/9")
    counts, notes = spec.schedule.resolve(197, 1, 12, atc.TECHNIQUE.at_most)
    left = [197 - sum(n for at, n in counts.items() if at <= block) - 1 for block in (3, 6, 9)]
    assert left == [137, 96, 67] and not notes
    assert technique.parse("atc:ratio=0.25,layers=3/6/9").schedule.resolve(197, 1, 12, 1.0)[0] == {3: 147, 6: 36, 9: 9}


def test_tome_cannot_merge_neighbours_of_one_parity():
    """Against tome, its nearest sibling: 1 and 3 are the closest, but both stand at odd positions."""
    seen = angles(0, 50, 10, 51, 120)
    assert reduced("atc", seen, 1).gone == [[3]] and reduced("atc", seen, 1).into == [[1]]
    assert reduced("tome", seen, 1).gone == [[2]]


def test_an_unknown_linkage():
    with pytest.raises(UnknownName, match="no linkage 'averag': did you mean 'average'"):
        technique.parse("atc:r=4,linkage=averag")


def at(**change: Any) -> Select:
    """The technique sees another site; a text names the value that is taken."""

    def wrong(site: Site, config: Config) -> Any:
        new = {key: getattr(site, value) if isinstance(value, str) else value for key, value in change.items()}
        return atc.select(dataclasses.replace(site, **new), config)

    return wrong


MISTAKES = {
    "queries for keys": at(key="query"),
    "CLS unprotected": at(prefix=0),
    "another linkage": lambda site, config: atc.select(site, Config("single")),
    "padding clustered": at(padded=False),
    "no log size in attention": lambda site, config: dataclasses.replace(atc.select(site, config), proportional=False),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_noticed(mistake: str):
    data, module = captured("bert")
    wrong = reduce(data, technique.parse("atc:ratio=0.5,layers=1/2"), select=MISTAKES[mistake])
    with pytest.raises(AssertionError, match="a destination that is none|other tokens are chosen|error"):
        compare(wrong, "bert", module, feeds("bert", 3))
