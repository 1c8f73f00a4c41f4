"""Multiplications, counted from the graph, against hand-computed figures and the graphs that come out."""

from functools import cache

import onnx
import onnx_ir as ir
import pytest
import torch
import transformers as tf

from edgetok import technique
from edgetok.errors import UsageError
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.flops import Work, macs
from edgetok.model import Origin
from edgetok.transform import transform
from edgetok.view import TransformerView
from tests import families


@cache
def deit_s() -> Work:
    """DeiT-S at 224 pixels, its classifier on CLS: 197 tokens, 384 channels, 12 blocks."""
    config = tf.ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, num_labels=1000
    )
    module = tf.ViTForImageClassification(config).eval()
    captured = capture_module(module, {"pixel_values": torch.zeros(2, 3, 224, 224)}, Origin("callable", "deit-s"))
    return Work.of(TransformerView.of(captured.model))


def by_hand(lefts: list[int]) -> int:
    """A block of n tokens, of which m are left behind its attention: 4nC² + 2n²C + 8mC²; patches and head beside."""
    n, width, total = 197, 384, 196 * 768 * 384 + 384 * 1000
    for left in lefts:
        total += 4 * n * width**2 + 2 * n * n * width + 8 * left * width**2
        n = left
    return total


def test_deit_s_as_published() -> None:
    assert deit_s().macs({}) == by_hand([197] * 12)
    assert deit_s().macs({}) / 1e9 == pytest.approx(4.60, abs=0.005)


@pytest.mark.parametrize(("r", "published"), [(8, 3.416), (13, 2.703), (16, 2.291)])
def test_deit_s_with_tokens_merged_as_published(r: int, published: float) -> None:
    lefts, left = [], 197
    for _ in range(12):
        left -= min(r, (left - 1) // 2)
        lefts.append(left)
    counts = {block: before - after for block, (before, after) in enumerate(zip([197, *lefts], lefts, strict=False))}
    assert deit_s().macs(counts) == pytest.approx(by_hand(lefts))
    assert deit_s().macs(counts) / 1e9 == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_is_predicted_is_what_comes_out(family: str) -> None:
    """The count at reduced tokens is that of the reduced graph, whatever its blocks are made of."""
    graph, _ = families.captured(family)
    model = ir.from_proto(onnx.ModelProto.FromString(graph))
    work = Work.of(TransformerView.of(model))
    assert work.macs({}) == sum(macs(node) for node in model.graph) > 0
    done = transform(model, [technique.parse("random:r=3,layers=1-2")], dtype="fp32", emit="full")
    counted = sum(macs(node) for node in done.model.graph if "/reduce/" not in (node.name or ""))
    assert work.macs({1: 3, 2: 3}) == pytest.approx(counted)
    assert work.share({1: 3, 2: 3}) < 1


@pytest.mark.parametrize("options", ["", ",layers=1-3", ",inflect=-1"])
@pytest.mark.parametrize("budget", [0.9, 0.75])
def test_a_budget_is_kept_and_used(budget: float, options: str) -> None:
    graph, _ = families.captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(graph))
    work = Work.of(TransformerView.of(model))
    spec = technique.parse(f"random:budget=flops:{budget}{options}")
    done = transform(model, [spec], dtype="fp32", emit="full")
    taken = {step.block: step.tokens_in - step.tokens_out for step in done.schedule}
    assert budget - 0.04 < work.share(taken) <= budget  # one token more or less in each block is a step of 0.03
    assert str(spec).startswith(f"random:budget=flops:{budget}")


def test_two_techniques_share_a_budget() -> None:
    graph, _ = families.captured("vit")
    model = ir.from_proto(onnx.ModelProto.FromString(graph))
    work = Work.of(TransformerView.of(model))
    specs = [technique.parse(text) for text in ("random:r=8,layers=0-1", "random:budget=flops:0.7,layers=2-3")]
    done = transform(model, specs, dtype="fp32", emit="full")
    taken = {step.block: step.tokens_in - step.tokens_out for step in done.schedule}
    assert work.share(taken) <= 0.7 < work.share({0: 8, 1: 8})


def test_a_budget_out_of_reach() -> None:
    graph, _ = families.captured("vit")
    spec = technique.parse("random:budget=flops:0.2,layers=3")
    model = ir.from_proto(onnx.ModelProto.FromString(graph))
    with pytest.raises(UsageError, match="budget=flops:0.2: the most that can go in layers=3 leaves 0.9. of the multi"):
        transform(model, [spec], dtype="fp32", emit="full")


def test_what_depends_on_tokens_how() -> None:
    assert Work(4, 8, (4,), (16,)).macs({0: 2}) == 8 + 2 + 4
