"""Activations of few bits, and outliers that are moved into the weights first."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import edgetok
from edgetok import graph as g
from edgetok import native
from edgetok.api import loading
from edgetok.api.samples import OnSamples
from edgetok.errors import BundleError, UnknownName, UsageError
from edgetok.lowbit import activations, os_plus
from edgetok.lowbit.linear import find_linears, rows_of_tokens
from edgetok.lowbit.node import read
from edgetok.plugins import round_to_nvfp4
from edgetok.transform import transform
from tests import families
from tests.test_lowbit import model_of


def test_a_range_by_hand() -> None:
    """127 steps up to the largest value, unless an outlier costs the others too much."""
    even = np.linspace(-1, 1, 255, dtype=np.float32)[:, None]
    assert activations.clipped(even, "int8") == pytest.approx(1 / 127)
    np.testing.assert_allclose(activations.rounded(even, 1 / 127, "int8"), even, atol=1e-7)
    outlier = np.append(np.random.default_rng(0).standard_normal((1000, 4)), [[9, 0, 0, 0]], axis=0).astype(np.float32)
    assert activations.clipped(outlier, "int8") < 9 / 127
    assert activations.rounded(np.float32([300, -300]), 1.0, "int8").tolist() == [127, -128]
    assert activations.rounded(np.float32([300, 1000, 17]), 1.0, "fp8").tolist() == [288, 448, 16]
    for dtype in activations.TYPES:
        assert activations.clipped(np.zeros((4, 4), np.float32), dtype) == 1.0
    assert activations.clipped(outlier, "fp4") == pytest.approx(9 / 6 / 448)  # all of it: each block has its own scale


def test_shift_and_scale_by_hand() -> None:
    """One channel around 40, one that reaches to 8 on both sides, one within 1."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (256, 3)).astype(np.float32) * np.float32([2, 8, 1]) + np.float32([40, 0, 0])
    rows[0], rows[1] = (42, 8, 1), (38, -8, -1)
    shift, scale = os_plus.shift_and_scale(rows, [np.eye(3, dtype=np.float32)])
    np.testing.assert_allclose(shift, [40, 0, 0], atol=1e-6)
    assert scale[1] > 1  # only what reaches beyond one threshold is narrowed, and as far as to it
    np.testing.assert_allclose(scale, np.maximum(1, np.float32([2, 8, 1]) * scale[1] / 8), rtol=1e-5)
    assert os_plus.shift_and_scale(rows / 50 - [0.8, 0, 0], [np.eye(3, dtype=np.float32)]) is None
    shift, _ = os_plus.shift_and_scale(rows, [np.eye(3, dtype=np.float32)], shifted=False)
    assert not shift.any()


def captured(family: str, batch: int = 2) -> tuple[ir.Model, OnSamples]:
    """A small model of a family, its nodes named, on noise."""
    data, _ = families.captured(family)
    model = ir.from_proto(onnx.load_model_from_string(data))
    feeds = {name: value.numpy() for name, value in families.feeds(family, batch=batch).items()}
    transform(model, [], dtype="fp32", emit="full")
    return model, OnSamples(g.specs(model.graph.inputs), feeds, {})


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_moving_outliers_changes_nothing_in_fp32(family: str) -> None:
    """Pre-norm, where only layers read the norm, and post-norm, where it is the residual stream as well."""
    model, on_samples = captured(family)
    for value in model.graph.initializers.values():  # outliers in every norm
        if value.shape is not None and len(value.shape) == 1:
            array = value.const_value.numpy()
            if array.dtype == np.float32 and array.size > 8 and (array.mean() > 0.5):
                grown = array.copy()
                grown[::7] *= 4
                value.const_value = ir.tensor(grown, name=value.name)
    before = on_samples(model)
    model.functions.clear()
    spec = activations.parse("int8:migrate=true")
    assert os_plus.migrate(model, spec, on_samples) >= 4
    after = on_samples(model)
    for name, wanted in before.items():
        assert np.linalg.norm(after[name] - wanted) < 1e-4 * np.linalg.norm(wanted)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six inputs of the small ViT."""
    folder = tmp_path_factory.mktemp("samples")
    for seed in range(6):
        feeds = families.feeds("vit", batch=1, seed=seed)
        np.savez(folder / f"{seed}.npz", **{name: value.numpy() for name, value in feeds.items()})
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vit") / "vit.onnx"
    file.write_bytes(families.captured("vit")[0])
    return file


@pytest.mark.parametrize("spec", ["int8", "int8:migrate=true", "fp8", "int8:skip=0/1/2,attention=false"])
def test_a_bundle_rounds_what_it_was_asked_to(spec: str, vit: Path, samples: Path, tmp_path: Path) -> None:
    bundle = edgetok.export(
        str(vit), out=tmp_path / "small", activations=spec, quantize=["nvfp4:skip=0"], samples=samples, min_cosine=0.9
    )
    assert bundle.manifest.recipe.activations == str(activations.parse(spec))
    model = ir.load(bundle.model_path)
    found = Counter((node.op_type, node.name.split("/")[0]) for node in model.graph)
    blocks = 1 if "skip" in spec else 4
    per_block = 4 if "attention=false" in spec else 7  # q, k and v's input, out, fc1, fc2; q, k, v
    assert (
        sum(n for (op, block), n in found.items() if op == "QuantizeLinear" and "blocks" in block) == blocks * per_block
    )
    with edgetok.load(bundle.path) as loaded:
        loaded.check()


def test_fp4_in_front_of_the_linear_layers(vit: Path, samples: Path, tmp_path: Path) -> None:
    """W4A4: the products are those of numpy with both sides rounded to NVFP4; attention is left alone."""
    bundle = edgetok.export(
        str(vit), out=tmp_path / "w4a4", activations="fp4:skip=head", quantize=["nvfp4:skip=head"], samples=samples,
        min_cosine=0.8,
    )  # fmt: skip
    model = ir.load(bundle.model_path)
    found = Counter((node.op_type, node.name.split("/")[0]) for node in model.graph if node.op_type == "RoundToNVFP4")
    assert found == {("RoundToNVFP4", f"blocks.{block}"): 4 for block in range(4)}
    rounded = [node for node in model.graph if node.op_type == "RoundToNVFP4"]
    assert all(user.op_type == "LutMatMul" for node in rounded for user, _ in g.consumers(node.outputs[0]))
    # One product: what is given to it and what comes of it, from the graph itself.
    (node,) = (node for node in rounded if node.name.startswith("blocks.1/mlp") and node.inputs[0].shape[-1] == 96)
    (product,) = (user for user, _ in g.consumers(node.outputs[0]))
    scale = g.constant_of(node.inputs[1])
    weight = read(product).dequantise()
    for value in (node.inputs[0], product.outputs[0]):
        model.graph.outputs.append(value)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    *_, given, got = session.run(None, bundle.samples("inputs"))
    x = round_to_nvfp4.reference(torch.from_numpy(given), torch.tensor(scale)).numpy()
    assert not np.array_equal(x, given) and np.abs(given).max() == pytest.approx(6 * 448 * scale, rel=0.3)
    np.testing.assert_allclose(got, x @ weight.T, atol=1e-5 * np.abs(got).max())
    with edgetok.load(bundle.path) as loaded:
        loaded.check()


def test_who_reads_a_value_beside_the_products_reads_it_as_it_was() -> None:
    """A matrix on the right is multiplied along another axis, and has no blocks along the last."""
    model = model_of(np.random.default_rng(0).standard_normal((8, 32), np.float32))
    (linear,) = find_linears(model.graph)
    op = g.Emitter(model.graph)
    square = g.named(op.MatMul(op.Transpose(linear.input, perm=[1, 0]), linear.input), "square")
    square.name = "square"
    model.graph.outputs.append(g.typed(square, ir.DataType.FLOAT, [32, 32]))
    feeds = {"x": np.random.default_rng(1).standard_normal((100, 32), np.float32)}
    on_samples = OnSamples(g.specs(model.graph.inputs), feeds, {})
    assert activations.round_activations(model, activations.parse("fp4"), on_samples) == 1
    assert linear.node.inputs[0].producer().op_type == "RoundToNVFP4"
    np.testing.assert_allclose(on_samples(model)["square"], feeds["x"].T @ feeds["x"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("spec", ["int8", "fp8", "fp4"])
def test_a_hair_decides_which_way_activations_are_rounded(spec: str, vit: Path, samples: Path, tmp_path: Path) -> None:
    """In half precision the kernels of few bits differ from the body in the last bit, and so does what is rounded."""
    if native.library() is None:
        pytest.skip(native.status().detail)
    bundle = edgetok.export(
        str(vit), out=tmp_path / "half", activations=spec, quantize=["nvfp4"], samples=samples, dtype="fp16",
        min_cosine=0.8,
    )  # fmt: skip
    (fidelity,) = bundle.manifest.fidelity
    for arithmetic in ("a32", "a8"):
        with edgetok.load(bundle.path, arithmetic=arithmetic) as loaded:
            loaded.check()
    promise = bundle.manifest.model_copy(update={"fidelity": (fidelity.model_copy(update={"sqnr_db": 90.0}),)})
    nearer = dataclasses.replace(bundle, manifest=promise)
    with (
        loading.Model(nearer, loading.resolve_device("cpu")) as loaded,
        pytest.raises(
            BundleError, match=f"output '{fidelity.output}' is off by .* less than 90 dB over the noise: edgetok doctor"
        ),
    ):
        loaded.check()


def test_moving_outliers_pays(vit: Path, samples: Path, tmp_path: Path) -> None:
    """On the trained encoder it is 4 dB; here the norms are given outliers."""
    model, on_samples = captured("vit")
    for node in model.graph:
        if node.op_type == "LayerNormalization":
            gamma = node.inputs[1].const_value.numpy().copy()
            gamma[5] *= 8
            value = ir.Value(name=f"{node.name}.gamma", const_value=ir.tensor(gamma), shape=node.inputs[1].shape)
            value.type = ir.TensorType(ir.DataType.FLOAT)
            model.graph.register_initializer(value)
            node.replace_input_with(1, value)
    before = on_samples(model)

    def lost(spec: str) -> float:
        rounded = model.clone()
        rounded.functions.clear()
        activations.round_activations(rounded, activations.parse(spec), on_samples)
        after = on_samples(rounded)
        return sum(float(np.square(after[name] - wanted).sum()) for name, wanted in before.items())

    assert lost("int8:migrate=true") < 0.5 * lost("int8")


def test_rows_of_tokens_by_hand() -> None:
    """Rows of padding go wherever the mask's tokens are an axis, and stay where they are none."""
    mask = np.int64([[1, 1, 0], [1, 0, 0]])
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(rows_of_tokens(array, mask), [array[0, 0], array[0, 1], array[1, 0]])
    heads = np.stack([array, -array], axis=1)  # (B, h, N, d)
    wanted = [array[0, 0], -array[0, 0], array[0, 1], -array[0, 1], array[1, 0], -array[1, 0]]
    np.testing.assert_array_equal(rows_of_tokens(heads, mask), wanted)
    for other in (array[:, :2], array[:, 0], array[:1]):  # reduced, pooled, the same for all samples
        assert len(rows_of_tokens(other, mask)) == other.size // 4
    assert len(rows_of_tokens(array, None)) == 6
    with pytest.raises(UsageError, match=r"nothing but padding: attention_mask is 0 everywhere; give --samples"):
        rows_of_tokens(array, 0 * mask)


def scales(model: ir.Model, on_samples: OnSamples, spec: str) -> dict[str, float]:
    """Of each rounded value, by the name of its node."""
    rounded = model.clone()
    rounded.functions.clear()
    activations.round_activations(rounded, activations.parse(spec), on_samples)
    quantise = [node for node in rounded.graph if node.op_type == "QuantizeLinear"]
    return {node.name: float(g.constant_of(node.inputs[1])) for node in quantise}


@pytest.mark.parametrize("spec", ["int8:skip=head", "int8:migrate=true,skip=head"])
def test_padding_says_nothing_about_ranges(spec: str) -> None:
    """What stands in padding reaches no output: a padding token far from all words leaves every scale as it was."""
    model, on_samples = captured("bert", batch=6)
    mask = on_samples.feeds["attention_mask"]
    feeds = {**on_samples.feeds, "input_ids": np.where(mask == 0, 0, on_samples.feeds["input_ids"])}
    assert (mask == 0).any() and (feeds["input_ids"][mask != 0] != 0).all()
    on_samples = dataclasses.replace(on_samples, feeds=feeds)
    before = scales(model, on_samples, spec)
    (table,) = (
        value for value in model.graph.initializers.values()
        if any(user.op_type == "Gather" and user.inputs[1].name == "input_ids" for user, _ in g.consumers(value))
    )  # fmt: skip
    embeddings = table.const_value.numpy().copy()
    embeddings[0] = 40 * np.random.default_rng(0).standard_normal(embeddings.shape[1])
    embeddings[0, 3] = 4000
    table.const_value = ir.tensor(embeddings, name=table.name)
    after = scales(model, on_samples, spec)
    assert after == pytest.approx(before, rel=1e-5)
    unmasked = dataclasses.replace(on_samples, feeds={**feeds, "attention_mask": np.ones_like(mask)})
    assert scales(model, unmasked, spec) != pytest.approx(before, rel=0.05)  # without the mask it does


def test_used_wrongly(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finds ranges on samples: give --samples DIR"):
        edgetok.export(str(vit), out=tmp_path / "a", activations="int8")
    with pytest.raises(UnknownName, match="no type of activations 'int4': known: fp8, int8|did you mean"):
        activations.parse("int4")
    with pytest.raises(UnknownName, match="no option of 'fp4' 'attention': known: keep, migrate, skip"):
        activations.parse("fp4:attention=true")
    with pytest.raises(UnknownName, match="no option of 'int8' 'migrates': did you mean 'migrate'"):
        activations.parse("int8:migrates=true")


def test_too_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, on_samples = captured("vit")
    monkeypatch.setattr(activations, "FEWEST", 1000)
    with pytest.raises(UsageError, match="the samples give 130 rows, 1000 are the fewest"):
        activations.round_activations(model, activations.parse("int8"), on_samples)
