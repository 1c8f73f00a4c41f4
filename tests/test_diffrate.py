"""diffrate: by hand, against its published arrays, its options, and beside what it resembles."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.exporters import diffrate
from edgetok.exporters.diffrate import Config
from edgetok.technique import Selection, State
from edgetok.view.site import Site
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.hooks import apply
from tests.test_golden import VALUES, arrays

HIDDEN = [[9, 9], [2, 0], [0, 3], [0, 4], [1, 0.5], [3, 4.0]]  # CLS and five patches


def attended(*class_row: float, hidden: list[list[float]] = HIDDEN, prefix: int = 1, **of: Any) -> State:
    row = torch.tensor([class_row])
    tokens = row.shape[1]
    attention = row[:, None, None].expand(-1, -1, tokens, -1)
    return state(torch.tensor([hidden]), attention=attention, prefix=prefix, **of)


def test_by_hand():
    #                            CLS   1     2     3     4    5
    out = reduced("diffrate", attended(0.1, 0.35, 0.25, 0.1, 0.05, 0.15), 3, prune="0.4")
    assert out.stay == [[0, 1, 2]]  # in the order of attention
    assert out.gone == [[5, 3, 4]] and out.choice.dropped == 1  # 0.4 of 3: token 4, the least attended
    # (3, 4)/5 has the cosine 0.6 with token 1 and 0.8 with token 2; (0, 4) is token 2's direction
    assert out.into == [[2, 2, 1]]
    torch.testing.assert_close(out.hidden[0], torch.tensor([[9, 9], [2, 0], [1, 11 / 3]]))
    torch.testing.assert_close(out.size[0, :, 0], torch.tensor([1, 1, 1 + 0.8 + 1]))
    assert out.choice.proportional


def test_sizes_weight_attention_and_no_mean():
    size = torch.tensor([[1, 3, 5, 2, 1, 4.0]])[..., None]
    out = reduced("diffrate", attended(0.1, 0.35, 0.25, 0.1, 0.05, 0.15, size=size), 3, prune="0.4")
    torch.testing.assert_close(out.hidden[0, 2], torch.tensor([1, 11 / 3]))
    torch.testing.assert_close(out.size[0, :, 0], torch.tensor([1, 3, 5 + 4 * 0.8 + 2]))


def test_equal_tokens_and_an_opposite_one():
    hidden = [[1, 0], [1, 2], [1, 2], [3, 1], [-1, -2.0]]
    out = reduced("diffrate", attended(0.2, 0.2, 0.2, 0.2, 0.2, hidden=hidden), 2, prune="0")
    assert out.stay == [[0, 1, 2]] and out.gone == [[3, 4]]  # equal attention: the lower index stays
    assert out.into == [[1, 1]]  # equal destinations: the lower row
    cosine = 5 / (5 * 10) ** 0.5
    torch.testing.assert_close(out.size[0, :, 0], torch.tensor([1, 1 + cosine, 1]))  # a cosine of -1 adds nothing


def test_everything_dropped():
    out = reduced("diffrate", attended(0.1, 0.35, 0.25, 0.1, 0.05, 0.15), 3, prune="1")
    assert out.choice.dropped == 3 and out.hidden[0].tolist() == [HIDDEN[0], HIDDEN[1], HIDDEN[2]]


def test_padding_and_prefix():
    size = torch.tensor([[1, 1, 1, 0, 1, 1.0]])[..., None]
    seen = attended(0.1, 0.05, 0.35, 0, 0.15, 0.35, size=size, prefix=2)
    out = reduced("diffrate", seen, 2, prune="0")
    assert out.stay == [[0, 1, 2, 5]]  # token 1 is a register
    assert out.gone == [[4, 3]]
    assert out.size[0].sum() == pytest.approx(4 + out.choice.share[0, 4].item())  # type: ignore[index]
    wide = reduced("diffrate", seen, 1, prune="0")  # nothing but padding goes, and changes nothing
    assert wide.gone == [[3]]
    torch.testing.assert_close(wide.hidden[0], torch.tensor(HIDDEN)[[0, 1, 2, 5, 4]])


def test_merging_is_diffrates():
    golden = arrays("diffrate_merge_k20")
    kept, tokens = int(golden["kept_number"]), golden["x"].shape[1]
    falling = torch.linspace(2, 1, tokens).expand(2, -1) / (1.5 * tokens)  # rows are sorted by importance
    seen = state(golden["metric"], attention=falling[:, None, None].expand(-1, -1, tokens, -1), prefix=1)
    out = reduced("diffrate", seen, tokens - kept, prune="0")
    assert torch.equal(out.choice.order, torch.arange(tokens).expand(2, -1))
    assert out.choice.destination is not None and out.choice.share is not None
    assert torch.equal(out.choice.destination, golden["dst_idx"].long())
    torch.testing.assert_close(out.choice.share[:, kept:, 0], golden["node_max"], rtol=0, atol=1e-6)
    merged, size = apply(out.choice, golden["x"], torch.ones(2, tokens, 1), kept)
    torch.testing.assert_close(merged, golden["x_mean"], rtol=0, atol=VALUES)
    added = torch.ones(2, kept).scatter_add(1, golden["dst_idx"].long(), golden["node_max"])
    torch.testing.assert_close(size[..., 0], added, rtol=0, atol=1e-6)


def test_it_is_not_evit():
    """Against cls-topk, its nearest sibling: the same tokens stay, the others end elsewhere."""
    seen = attended(0.1, 0.35, 0.25, 0.1, 0.05, 0.15)
    here, there = reduced("diffrate", seen, 3), reduced("cls-topk", seen, 3)
    assert here.stay == [[0, 1, 2]] and there.stay == [[0, 1, 2]]
    assert here.into == [[2, 2, 1]] and there.into == [[2, 2, 2]]
    assert not torch.allclose(here.hidden, there.hidden)


PUBLISHED = {
    "2.9": (
        "197,196,190,168,150,139,129,117,99,78,58,3", "197,194,176,156,141,133,121,107,88,64,56,3",
        "diffrate:r=0/3/18/20/15/8/12/14/19/24/8/53,prune=0/1/4/8/6/2/4/4/8/10/6/53",
    ),
    "2.3": (
        "197,192,168,143,121,105,92,74,62,45,33,3", "197,180,156,127,109,98,80,66,52,37,31,3",
        "diffrate:r=0/17/24/29/18/11/18/14/14/15/6/28,prune=0/5/12/13/6/4/6/6/4/7/4/28",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules(name: str):
    """DeiT-S: the tokens behind pruning (P) and behind merging (Q) of each block."""
    behind_pruning, behind_merging, text = PUBLISHED[name]
    spec = technique.parse(text)
    assert str(spec) == text
    counts, notes = spec.schedule.resolve(197, 1, 12, diffrate.TECHNIQUE.at_most)
    assert not notes
    tokens, p, q = 197, [], []
    for block in range(12):
        count = counts.get(block, 0)
        p.append(tokens - spec.config.dropped(count, block, 12))
        tokens -= count
        q.append(tokens)
    assert ",".join(map(str, p)) == behind_pruning and ",".join(map(str, q)) == behind_merging
    share = sum(before - after for before, after in zip([197, *q[:-2]], p[:-1], strict=True)) / (197 - q[-2])
    assert share == pytest.approx(float(Config().prune), abs=0.05)  # the default, the last block apart


def test_counts_per_block_in_a_model():
    data, module = captured("bert")
    asked = technique.parse("diffrate:r=2/5/0/4,prune=0/3/0/4")
    compare(reduce(data, asked), "bert", module, feeds("bert", 3))
    with pytest.raises(UsageError, match="prune=1/2 has 2 numbers, and the model 4 blocks"):
        reduce(data, technique.parse("diffrate:r=4,prune=1/2"))


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        (value, f"option prune='{value}': accepted is a share from 0 to 1 such as 0.4, or one count per block of "
         "the model such as 0/1/5/8")
        for value in ("1.5", "-0.1", "7", "1/x", "nan", "half")
    ],
)  # fmt: skip
def test_a_wrong_share(prune: str, message: str):
    with pytest.raises(UsageError) as caught:
        technique.parse(f"diffrate:r=4,prune={prune}")
    assert str(caught.value) == message


def test_a_wrong_list():
    with pytest.raises(UsageError, match="prune=1/2 has 2 numbers, and the model 4 blocks; give one for each, 0 where"):
        Config("1/2").dropped(4, 0, 4)
    with pytest.raises(UsageError, match="5 tokens cannot be dropped from block 1, where 4 go; r counts those dropped"):
        Config("1/5").dropped(4, 1, 2)


def with_options(**change: object) -> Any:
    return lambda site, config: dataclasses.replace(diffrate.select(site, config), **change)


def by_hidden(site: Site, config: Config) -> Selection:
    keys = dataclasses.replace(site)
    keys.unit_hidden = site.unit_metric  # type: ignore[misc]
    return diffrate.select(keys, config)


MISTAKES = {
    "a mean by size": with_options(weight=None),
    "sizes handed over whole": with_options(share=None),
    "keys compared": by_hidden,
    "CLS unprotected": lambda site, config: diffrate.select(dataclasses.replace(site, prefix=0), config),
    "another share": lambda site, config: diffrate.select(site, Config("0.8")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_noticed(mistake: str):
    data, module = captured("bert")
    wrong = reduce(data, technique.parse("diffrate:r=5"), select=MISTAKES[mistake])
    with pytest.raises(AssertionError, match="a destination that is none|other tokens are chosen|error"):
        compare(wrong, "bert", module, feeds("bert", 3))
