"""Every family x every technique: the graph on onnxruntime against hooks on the original module."""

import onnx
import onnx_ir as ir
import pytest
import torch
from transformers import BertModel

from edgetok import technique, zoo
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.retype import retype
from tests import families
from tests.comparison import check_values, compare, reduce, unreduced
from tests.families import captured

SPECS = [f"{name}:r=4" for name in technique.names()] + [
    "tome:keep=0.4,proportional=false",
    "pitome:ratio=0.85,variant=code",
]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_untouched_graph_equals_the_module(family):
    data, module = captured(family)
    for batch in (1, 3):
        unreduced(data, module, families.feeds(family, batch))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_reduced_graph_equals_the_hooked_module(family, spec):
    data, module = captured(family)
    reduced = reduce(data, technique.parse(spec))
    assert len(reduced.plan) == 4
    ties = [compare(reduced, family, module, families.feeds(family, batch)) for batch in (1, 3)]
    print(f"{family}, {spec}: {sum(ties)} choices between equal scores")


HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_half_precision(family, dtype):
    """By the same rule: at most twice PyTorch's own error in that type, reduced and not."""
    data, module = captured(family)
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    retype(model, dtype)
    for batch in (1, 3):
        feeds = families.feeds(family, batch)
        unreduced(ir.to_proto(model).SerializeToString(), module, feeds, HALF[dtype])
        ties = compare(reduce(data, technique.parse("tome:r=4"), dtype), family, module, feeds, HALF[dtype])
        print(f"{family}, {dtype}: {ties} choices between equal scores")


@pytest.mark.parametrize("name", technique.names())
@pytest.mark.parametrize("family", ["vit", "whisper", "wav2vec2"])
def test_a_sample_that_is_not_finite_stays_alone(family, name):
    """Nothing crashes; that sample's outputs are not finite, the others are untouched."""
    data, _ = captured(family)
    reduced = reduce(data, technique.parse(f"{name}:r=4"))
    feeds = families.feeds(family, 3)
    spoilt = {key: value.index_fill(0, torch.tensor([1]), float("nan")) for key, value in feeds.items()}
    clean, dirty = reduced.run(feeds)[0], reduced.run(spoilt)[0]
    for output in clean:
        assert torch.equal(clean[output][[0, 2]], dirty[output][[0, 2]])
        assert not dirty[output][1].isfinite().any()


@pytest.mark.parametrize("name", technique.names())
def test_minilm(name):
    """The zoo's sentence encoder, its graph written without torch, against hooks on transformers' BertModel."""
    model = capture("zoo:minilm", CaptureOptions(length=48)).model
    model.graph.outputs.remove(next(value for value in model.graph.outputs if value.name == "sentence_embedding"))
    module = BertModel.from_pretrained(zoo.find("minilm").locate(), add_pooling_layer=False).eval()
    reduced = reduce(ir.to_proto(model).SerializeToString(), technique.parse(f"{name}:r=5"))
    for batch in (1, 3):
        feeds = {
            "input_ids": torch.randint(1000, 20_000, (batch, 48), generator=torch.Generator().manual_seed(batch)),
            "attention_mask": (torch.arange(48) < torch.tensor([[31], [48], [20]])[:batch]).long(),
        }
        ties = compare(reduced, "bert", module, feeds)
        print(f"minilm, {name}: {ties} choices between equal scores")


@pytest.mark.parametrize("spoil", [lambda x: 0.9 * x, lambda x: x.index_fill(1, torch.tensor([0]), float("nan"))])
def test_the_check_rejects_wrong_values(spoil):
    wanted = {"x": torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    plain = {"x": wanted["x"].float()}
    check_values(plain, wanted, plain)
    with pytest.raises(AssertionError, match="error"):
        check_values({"x": spoil(plain["x"])}, wanted, plain)
