"""Every family x every technique: the graph on onnxruntime against hooks on the original module."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from transformers import BertModel

from edgetok import plugins, technique, zoo
from edgetok.errors import Refusal
from edgetok.exporters.sources import CaptureOptions, capture
from edgetok.retype import retype
from edgetok.transform import transform
from tests import families, hooks
from tests.comparison import Reduced, check_values, compare, reduce, run, session, unreduced
from tests.families import captured
from tests.saliency import Features, Saliency

SPECS = [spec for name in technique.names() for spec in technique.load(name).examples]
FIRST = [technique.load(name).examples[0] for name in technique.names()]
ON_TEXT = [spec if spec != "pool:keep=0.25" else "pool:keep=0.25,rows=1" for spec in FIRST]

# No prefix, two prefix tokens, five; padding, local attention. `make test` takes these, `make test-full` every family.
CORE = ("whisper", "deit", "dinov2-registers", "bert", "modernbert-local")


def pairs(chosen: Iterable[str], specs: Iterable[str], quick: Container[str] = CORE) -> list[Any]:
    """(family, spec) of all; those outside the quick families are for make test-full."""
    more = pytest.mark.more
    return [pytest.param(f, s, marks=() if f in quick else more, id=f"{f}-{s}") for f in chosen for s in specs]


def reducible(family: str, spec: str, dtype: str = "fp32") -> Reduced:
    """The family's graph, reduced; skipped, once the refusal is seen, where the technique has nothing to work on."""
    data, _ = captured(family)
    asked = technique.parse(spec)
    needs, refusal = technique.load(asked.name), None
    if needs.needs_class_token and family not in hooks.PREFIX:
        refusal = f"{asked.name} asks what the class token attends to, and this model has none"
    elif needs.where == "output" and family == "vit-mean":
        refusal = "no output holds the encoder's tokens"
    elif asked.name == "zoo-prune" and family == "clip-vision":
        refusal = "zoo-prune asks how the projector reacts"
    elif asked.name == "zoo-prune" and dtype != "fp32":
        refusal = "vanishes in half precision"
    elif asked.name == "pool" and not asked.config.rows and family in families.NO_GRID:
        refusal = "pool averages over a grid"
    elif technique.Plan(asked.name, needs, asked.config, {}).crops > 1:
        refusal = f"{asked.name} shares tokens between "
    elif needs.needs_grid and "pixel_values" not in families.feeds(family, 1):
        refusal = "the technique asks where patches lie on a square grid"
    if refusal is not None:
        with pytest.raises(Refusal, match=refusal):
            reduce(data, asked, dtype)
        pytest.skip(refusal)
    return reduce(data, asked, dtype)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_untouched_graph_equals_the_module(family):
    data, module = captured(family)
    for batch in (1, 3):
        unreduced(data, module, families.feeds(family, batch))


@pytest.mark.parametrize(("family", "spec"), pairs(families.FAMILIES, SPECS))
def test_the_reduced_graph_equals_the_hooked_module(family, spec):
    _, module = captured(family)
    reduced = reducible(family, spec)
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


@pytest.mark.parametrize(("family", "spec"), pairs(["bert", "deit", "wav2vec2-masked"], SPECS, quick=["bert"]))
def test_every_technique_in_fp16(family, spec):
    _, module = captured(family)
    reduced = reducible(family, spec, "fp16")
    ties = compare(reduced, family, module, families.feeds(family, 3), torch.float16)
    print(f"{family}, {spec}, fp16: {ties} choices between equal scores")


@pytest.mark.parametrize(("family", "spec"), pairs(families.FAMILIES, FIRST, quick=["deit", "bert"]))
def test_what_is_exported_is_what_was_compared(family, spec):
    """Tidying, function bodies and names change nothing, and the graph passes ONNX's own checker."""
    data, _ = captured(family)
    feeds, asked = families.feeds(family, 3), technique.parse(spec)
    compared, _ = reducible(family, spec).run(feeds)
    exported = transform(ir.from_proto(onnx.ModelProto.FromString(data)), [asked], dtype="fp32", emit="full").model
    plugins.add_functions(exported)
    onnx.checker.check_model(ir.to_proto(exported), full_check=True)
    wanted = {name: value.double() for name, value in compared.items()}
    check_values(run(session(exported), feeds), wanted, compared, relative=1e-6)


@pytest.mark.parametrize(("family", "spec"), pairs(["vit", "whisper", "wav2vec2"], FIRST, quick=["vit"]))
def test_a_sample_that_is_not_finite_stays_alone(family, spec):
    """Nothing crashes; that sample's outputs are not finite, the others are untouched."""
    reduced = reducible(family, spec)
    feeds = families.feeds(family, 3)
    spoilt = {key: value.index_fill(0, torch.tensor([1]), float("nan")) for key, value in feeds.items()}
    (clean, own), (dirty, choices) = reduced.run(feeds), reduced.run(spoilt)
    for chosen, without in zip(choices, own, strict=True):
        order, destination = chosen.order, chosen.destination
        assert (order.sort(dim=1).values == torch.arange(order.shape[1])).all()
        for got, wanted in ((order, without.order), (destination, without.destination)):
            assert (got is None and wanted is None) or torch.equal(got[[0, 2]], wanted[[0, 2]])
        if destination is not None:
            assert destination.min() >= 0 and destination.max() < order.shape[1] - destination.shape[1]
    for output in clean:
        assert torch.equal(clean[output][[0, 2]], dirty[output][[0, 2]])
        assert not clean[output].is_floating_point() or not dirty[output][1].isfinite().any()


@pytest.mark.parametrize("spec", ON_TEXT)
def test_minilm(spec):
    """The zoo's sentence encoder, its graph written without torch, against hooks on transformers' BertModel."""
    model = capture("zoo:minilm", CaptureOptions(length=48)).model
    model.graph.outputs.remove(next(value for value in model.graph.outputs if value.name == "sentence_embedding"))
    data, asked = ir.to_proto(model).SerializeToString(), technique.parse(spec)
    if technique.load(asked.name).needs_grid:
        with pytest.raises(Refusal, match="where patches lie on a square grid, and .* are 47, the square of no number"):
            reduce(data, asked)
        pytest.skip("a text has no grid")
    module = BertModel.from_pretrained(zoo.find("minilm").locate(), add_pooling_layer=False).eval()
    reduced = reduce(data, asked)
    for batch in (1, 3):
        feeds = {
            "input_ids": torch.randint(1000, 20_000, (batch, 48), generator=torch.Generator().manual_seed(batch)),
            "attention_mask": (torch.arange(48) < torch.tensor([[31], [48], [20]])[:batch]).long(),
        }
        ties = compare(reduced, "bert", module, feeds)
        print(f"minilm, {spec}: {ties} choices between equal scores")


@pytest.fixture(scope="module")
def saliency(photograph: Path) -> tuple[bytes, torch.nn.Module, dict[str, torch.Tensor]]:
    """zoo:dinov2-style-s14 as captured from its file, as a PyTorch module, and the photograph with its mirror image."""
    entry = zoo.find("dinov2-style-s14")
    picture = torch.from_numpy(entry.preprocess["input_image"].load([str(photograph)], photograph.parent))
    model = capture("zoo:dinov2-style-s14").model
    feeds = {"input_image": torch.cat([picture, picture.flip(3)])}
    return ir.to_proto(model).SerializeToString(), Saliency(entry.locate()), feeds


def test_saliency_untouched(saliency):
    data, module, feeds = saliency
    (graph,), (wanted,) = run(session(data), feeds).values(), hooks.run(module, feeds, torch.float32).values()
    torch.testing.assert_close(graph, wanted, rtol=0, atol=1e-5)
    unreduced(data, module, feeds)


@pytest.mark.parametrize(
    "spec",
    ["tome:r=16", "pitome:r=16", "pitome:ratio=0.925,variant=code", "random:r=16", "cls-topk:ratio=0.7,layers=3/6/9"],
)
def test_saliency(saliency, spec):
    """A real photograph, trained weights, 257 tokens and a head that needs its grid back."""
    data, module, feeds = saliency
    ties = compare(reduce(data, technique.parse(spec)), "dinov2", module, feeds)
    print(f"dinov2-style-s14, {spec}: {ties} choices between equal scores")


@pytest.mark.parametrize("spec", FIRST)
def test_features(saliency, spec):
    """The same encoder, its tokens given out: every technique on a real photograph."""
    data, module, feeds = saliency
    model = ir.from_proto(onnx.ModelProto.FromString(data))
    features = [node for node in model.graph if node.op_type == "LayerNormalization"][-1].outputs[0]
    features.name = "features"
    model.graph.outputs[:] = [features]
    reduced = reduce(ir.to_proto(model).SerializeToString(), technique.parse(spec))
    ties = compare(reduced, "dinov2", Features(module.backbone), feeds)
    print(f"dinov2-style-s14, {spec}: {ties} choices between equal scores")


@pytest.mark.parametrize("spoil", [lambda x: 0.9 * x, lambda x: x.index_fill(1, torch.tensor([0]), float("nan"))])
def test_the_check_rejects_wrong_values(spoil):
    wanted = {"x": torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    plain = {"x": wanted["x"].float()}
    check_values(plain, wanted, plain)
    with pytest.raises(AssertionError, match="error"):
        check_values({"x": spoil(plain["x"])}, wanted, plain)
