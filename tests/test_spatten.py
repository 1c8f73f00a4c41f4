"""spatten: by hand, over several blocks, and beside what it resembles."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import technique
from edgetok.exporters import spatten
from edgetok.technique import Observe
from edgetok.transform import transform
from edgetok.view.site import Site
from tests.alone import reduced, state
from tests.comparison import compare, reduce
from tests.families import captured, feeds

ATTENTION = [
    [0.3, 0.1, 0.4, 0.1, 0.1],  # CLS
    [0.2, 0.2, 0.1, 0.2, 0.3],
    [0.1, 0.2, 0.1, 0.2, 0.4],
    [0.2, 0.2, 0.1, 0.2, 0.3],
    [0.3, 0.2, 0.1, 0.2, 0.2],
]  # received: 1.1, 0.9, 0.8, 0.9, 1.3


def tokens(*values: float) -> torch.Tensor:
    return torch.tensor([values]).float()[..., None]


def test_by_hand():
    hidden = tokens(1, 2, 3, 4, 5)
    out = reduced("spatten", state(hidden, attention=torch.tensor([[ATTENTION]]), prefix=1), 2)
    assert out.memory is not None
    torch.testing.assert_close(out.memory, tokens(1.1, 0.9, 0.8, 0.9, 1.3))
    assert out.stay == [[0, 1, 4]] and out.gone == [[3, 2]]  # 1 and 3 are equal: the lower index stays
    assert torch.equal(out.hidden, tokens(1, 2, 5))  # nothing is added to them
    assert out.size[0, :, 0].tolist() == [1, 1, 1]


def test_what_was_received_before_counts():
    before = tokens(0, 0, 0.5, 0.1, 0)
    seen = state(tokens(1, 2, 3, 4, 5), attention=torch.tensor([[ATTENTION]]), prefix=1, memory=before)
    assert reduced("spatten", seen, 2).stay == [[0, 2, 4]]  # 0.9, 1.3, 1.0, 1.3


def test_a_padded_query_counts_nothing():
    weights = [
        [0.4, 0.2, 0.1, 0, 0.3],
        [0.2, 0.3, 0.1, 0, 0.4],
        [0.3, 0.2, 0.2, 0, 0.3],
        [0.0, 0.0, 1.0, 0, 0.0],  # padding: its row would save token 2
        [0.1, 0.4, 0.2, 0, 0.3],
    ]
    size = tokens(1, 1, 1, 0, 1)
    out = reduced("spatten", state(tokens(1, 2, 3, 4, 5), attention=torch.tensor([[weights]]), prefix=1, size=size), 2)
    assert out.memory is not None
    torch.testing.assert_close(out.memory, tokens(1, 1.1, 0.6, 0, 1.3))
    assert out.stay == [[0, 1, 4]] and out.gone == [[2, 3]]  # padding is the last


def test_without_prefix():
    assert reduced("spatten", state(tokens(1, 2, 3, 4, 5), attention=torch.tensor([[ATTENTION]])), 3).stay == [[0, 4]]


def test_what_the_class_token_attends_to_is_another_choice():
    """Against cls-topk, its nearest sibling: CLS attends to token 2, the others do not."""
    given = state(tokens(1, 2, 3, 4, 5), attention=torch.tensor([[ATTENTION]]), prefix=1)
    assert reduced("spatten", given, 3).stay == [[0, 4]]
    assert reduced("cls-topk", given, 3, fuse=False).stay == [[0, 2]]


def test_blocks_behind_the_last_reduction_keep_their_attention():
    data, _ = captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    transform(model, [technique.parse("spatten:r=4,layers=1")], dtype="fp32", emit="full")
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Softmax") == 2 and kinds.count("Attention") == 2  # whose map is read, and the others


def with_observe(monkeypatch: pytest.MonkeyPatch, graph: Any) -> None:
    right = spatten.TECHNIQUE
    monkeypatch.setattr(spatten, "TECHNIQUE", dataclasses.replace(right, observe=Observe(graph, spatten.observed)))


def from_this_block_only(site: Site, memory: ir.Value | None, config: Any) -> ir.Value:
    return spatten.observe(site, None, config)


def padded_queries_counted(site: Site, memory: ir.Value | None, config: Any) -> ir.Value:
    return spatten.observe(dataclasses.replace(site, padded=False), memory, config)


@pytest.mark.parametrize(("mistake", "family"), [(from_this_block_only, "vit"), (padded_queries_counted, "bert")])
def test_mistakes_in_what_is_remembered_are_noticed(mistake: Any, family: str, monkeypatch: pytest.MonkeyPatch):
    data, module = captured(family)
    asked = technique.parse("spatten:r=5")
    compare(reduce(data, asked), family, module, feeds(family, 3))
    with_observe(monkeypatch, mistake)
    with pytest.raises(AssertionError, match="other tokens are chosen|error"):
        compare(reduce(data, asked), family, module, feeds(family, 3))


def test_an_unprotected_class_token_is_noticed():
    data, module = captured("bert")
    wrong = reduce(
        data, technique.parse("spatten:r=5"), select=lambda s, c: spatten.select(dataclasses.replace(s, prefix=0), c)
    )
    with pytest.raises(AssertionError, match="a destination that is none|other tokens are chosen|error"):
        compare(wrong, "bert", module, feeds("bert", 3))
