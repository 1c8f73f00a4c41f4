"""cls-topk: by hand, against EViT's arrays, and beside what it resembles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgetok import technique
from edgetok.exporters import cls_topk
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds
from tests.test_golden import VALUES, arrays, run_stack


def attended(*class_row: float, size: tuple[float, ...] | None = None, prefix: int = 1):
    """Tokens (1, N, 1) of the values 1, 2, 4, 8 ..., whose class token attends to them as given."""
    weights = torch.tensor([class_row])
    tokens = weights.shape[1]
    hidden = 2.0 ** torch.arange(tokens)[None, :, None]
    sizes = {} if size is None else {"size": torch.tensor([size]).float()[..., None]}
    others = torch.eye(tokens)[None, 1:] / 2 + 0.5 / tokens
    return state(hidden, attention=torch.cat([weights[:, None], others], dim=1)[:, None], prefix=prefix, **sizes)


def test_by_hand():
    #                CLS  1    2    3    4    5
    out = reduced("cls-topk", attended(0.2, 0.1, 0.3, 0.05, 0.25, 0.1), 2)
    assert out.stay == [[0, 2, 4, 1]]  # the best first; 1 and 5 are equal: the lower index is the fused token's place
    assert out.gone == [[5, 3]] and out.into == [[1, 1]]
    # 0.1 x 2 + 0.1 x 32 + 0.05 x 8: not divided by 0.25
    torch.testing.assert_close(out.hidden[0, :, 0], torch.tensor([1, 4, 16, 3.8]))
    assert out.size[0, :, 0].tolist() == [1, 1, 1, 3]
    assert not out.choice.proportional


def test_dropping():
    out = reduced("cls-topk", attended(0.2, 0.1, 0.3, 0.05, 0.25, 0.1), 2, fuse=False)
    assert out.stay == [[0, 2, 4, 1]] and out.gone == [[5, 3]] and out.choice.dropped == 2
    assert out.hidden[0, :, 0].tolist() == [1, 4, 16, 2]


def test_the_fused_token_is_a_token_like_the_others():
    first = reduced("cls-topk", attended(0.2, 0.1, 0.3, 0.05, 0.25, 0.1), 2)
    row = torch.tensor([[0.1, 0.1, 0.2, 0.6]])[:, None, None].expand(-1, -1, 4, -1)
    again = reduced("cls-topk", state(first.hidden, attention=row, size=first.size, prefix=1), 1)
    assert again.stay == [[0, 3, 2]]  # it comes first, and what is left is fused with the next
    torch.testing.assert_close(again.hidden[0, :, 0], torch.tensor([1, 3.8, 0.2 * 16 + 0.1 * 4]))
    assert again.size[0, :, 0].tolist() == [1, 3, 2]


def test_prefix_and_padding():
    out = reduced("cls-topk", attended(0.1, 0.02, 0.3, 0.28, 0, 0.3, size=(1, 1, 1, 1, 0, 1), prefix=2), 2)
    assert out.stay == [[0, 1, 2, 5]]  # token 1 is a register: it stays at 0.02
    assert out.gone == [[3, 4]]
    torch.testing.assert_close(out.hidden[0, 3], torch.tensor([0.3 * 32 + 0.28 * 8]))  # padding has no weight
    assert out.size[0, :, 0].tolist() == [1, 1, 1, 2]


def published(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the class token attends to, and the tokens kept, of EViT's blocks."""
    golden = arrays("evit_fused_k0.7")
    patches = golden[f"cls_attn_{step}"]
    return torch.cat([1 - patches.sum(1, keepdim=True), patches], dim=1), golden[f"keep_idx_{step}"] + 1


@pytest.mark.parametrize(("step", "count"), [(0, 8), (2, 5)])
def test_choices_are_evits(step: int, count: int):
    row, kept = published(step)
    tokens = row.shape[1]
    seen = state(torch.randn(2, tokens, 3), attention=row[:, None, None].expand(-1, -1, tokens, -1), prefix=1)
    out = reduced("cls-topk", seen, count)
    assert torch.equal(out.choice.order[:, 1 : 1 + kept.shape[1]], kept.long())
    assert tokens - count == 1 + kept.shape[1] + 1  # CLS, the kept, the fused one


# 0.7 of 30 is 21 and one fused: 8 go; in block 2 0.7 of 22 is 16 and one fused: 5 go.
STACKS = [(1, "cls-topk:r=8,layers=0"), (2, "cls-topk:r=8,layers=0"), (3, "cls-topk:r=8/5,layers=0/2")]


def check(depth: int, spec: str) -> None:
    golden = arrays("evit_fused_k0.7")
    got, wanted = run_stack(golden, depth, spec), golden[f"x_{depth - 1}"].numpy()
    tokens = next(array for array in got.values() if array.shape == wanted.shape)
    np.testing.assert_allclose(tokens, wanted, rtol=0, atol=VALUES)
    np.testing.assert_allclose(got["cls"], wanted[:, 0], rtol=0, atol=VALUES)
    print(f"depth {depth}: largest error {np.abs(tokens - wanted).max():.1e}")


@pytest.mark.parametrize(("depth", "spec"), STACKS)
def test_blocks_are_evits(depth: int, spec: str):
    check(depth, spec)


@pytest.mark.parametrize("change", [{"mean": True}, {"proportional": True}, {"weight": None}])
def test_another_fusion_is_noticed(change: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    right = cls_topk.TECHNIQUE
    wrong = dataclasses.replace(right, select=lambda *args: dataclasses.replace(right.select(*args), **change))
    monkeypatch.setattr(cls_topk, "TECHNIQUE", wrong)
    with pytest.raises(AssertionError):
        check(*STACKS[2])


def test_an_unprotected_class_token_is_noticed():
    data, module = captured("vit")
    right = cls_topk.select
    wrong = reduce(
        data, technique.parse("cls-topk:r=5"), select=lambda s, c: right(dataclasses.replace(s, prefix=0), c)
    )
    with pytest.raises(AssertionError, match="a destination that is none|other tokens are chosen|error"):
        compare(wrong, "vit", module, feeds("vit", 3))


def test_what_all_tokens_attend_to_is_another_choice():
    """Against spatten, its nearest sibling: one token is looked at by CLS alone, the other by all the rest."""
    by_all = [0.25, 0.25, 0.05, 0.45]
    attention = torch.tensor([[[[0.2, 0.2, 0.5, 0.1], by_all, by_all, by_all]]])
    given = state(torch.randn(1, 4, 2), attention=attention, prefix=1)
    assert reduced("cls-topk", given, 1, fuse=False).gone == [[3]]
    assert reduced("spatten", given, 1).gone == [[2]]
