"""Whole models in every format: what runs is PyTorch's model with the weights that the format holds.

To the parity rule in a32, in plain onnxruntime and in C++. In a8 a number that is rounded the other way by a hair's
breadth turns whatever follows, so that two right models differ by as much as rounding does: there each product is held
to its reference on what the running graph itself feeds to it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers as tf

from edgetok import graph as g
from edgetok import lowering, native, plugins
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import find_linears
from edgetok.lowbit.node import read
from edgetok.lowbit.quantise import quantise
from edgetok.lowbit.weight import Weight
from edgetok.model import Origin
from edgetok.plugins.lut_matmul import activation_block
from edgetok.runtimes import ort
from edgetok.transform import transform
from tests import families, hooks
from tests.comparison import RELATIVE, check_values, run, session
from tests.test_quantisers import SPECS

COMMON = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 160}
TEXT = COMMON | {"vocab_size": 200, "max_position_embeddings": 32, "pad_token_id": 0}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "vit": lambda: tf.ViTModel(tf.ViTConfig(image_size=32, patch_size=8, **COMMON), add_pooling_layer=False),
    "bert": lambda: tf.BertModel(tf.BertConfig(**TEXT)),
    "llama": lambda: tf.LlamaModel(tf.LlamaConfig(num_key_value_heads=2, use_cache=False, **TEXT)),
}
EVERY = [pytest.param(name, spec, id=f"{name}-{spec}") for name in MODELS for spec in SPECS]


@functools.cache
def captured(name: str) -> tuple[ir.Model, torch.nn.Module]:
    """A model's graph as it is quantised, its weights PyTorch's own, and the module."""
    torch.manual_seed(0)
    module = families.spread(MODELS[name]())
    model = capture_module(module, feeds(name), Origin("callable", name)).model
    transform(model, [], dtype="fp32", emit="full")
    return model, module


def feeds(name: str) -> dict[str, torch.Tensor]:
    """Two pictures, or two texts of which one is padded."""
    if name == "vit":
        return families.pixels(size=32)
    words = families.words(length=16)
    words["attention_mask"][1, 11:] = 0
    return words


@functools.cache
def quantised(name: str, spec: str) -> tuple[ir.Model, dict[str, Weight]]:
    """A family's graph in a format, and the weights by the name of their node."""
    model = captured(name)[0].clone()
    quantise(model, [quantiser.parse(spec)], None)
    plugins.add_functions(model)
    return model, {node.name: read(node) for node in model.graph if node.op_type == "LutMatMul"}


def in_torch(name: str, weights: dict[str, Weight]) -> torch.nn.Module:
    """The module with those weights in its linear layers, all of which are quantised."""
    graph, module = captured(name)
    module = copy.deepcopy(module)
    names = {each.matrix.tobytes(): each.quantised_name for each in find_linears(graph.graph)}
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == len(names) == len(weights)
    for layer in layers:
        held = weights[names.pop(layer.weight.detach().numpy().tobytes())]
        layer.weight.data = torch.from_numpy(held.dequantise())
    return module


def lowered(model: ir.Model, arithmetic: lowering.Arithmetic) -> ir.Model:
    """As `edgetok run` has it."""
    model = model.clone()
    lowering.lower(model, arithmetic, native.library() is not None)
    return model


def opened(model: ir.Model) -> onnxruntime.InferenceSession:
    """A session that knows the C++ operators, where they are built."""
    return ort.session(ir.to_proto(model).SerializeToString(), threads=1)


@pytest.mark.parametrize(("name", "spec"), EVERY)
def test_a32_is_the_model_with_the_weights_of_the_format(name: str, spec: str) -> None:
    model, weights = quantised(name, spec)
    module, given = in_torch(name, weights), feeds(name)
    exact, plain = (hooks.run(module, given, dtype) for dtype in (torch.float64, torch.float32))
    check_values(run(session(model), given), exact, plain)
    check_values(run(opened(lowered(model, "a32")), given), exact, plain)


def with_products(model: ir.Model) -> list[ir.Node]:
    """The products that round; their inputs and outputs become the graph's outputs x.NAME and y.NAME."""
    products = [node for node in model.graph if node.domain in ("edgetok.native", "com.microsoft")]
    for node in products:
        op = g.Emitter(model.graph)
        for letter, value in (("x", node.inputs[0]), ("y", node.outputs[0])):
            copied = op.Identity(value)
            copied.name = f"{letter}.{node.name}"
            model.graph.outputs.append(g.typed(copied, ir.DataType.FLOAT, list(value.shape or ())))
    return products


@pytest.mark.parametrize(("name", "spec"), EVERY)
def test_a8_rounds_what_feeds_each_product(name: str, spec: str) -> None:
    model, weights = quantised(name, spec)
    model = lowered(model, "a8")
    products = with_products(model)
    got = run(opened(model), feeds(name))
    for node in products:
        weight, x, y = weights[node.name], got[f"x.{node.name}"], got[f"y.{node.name}"].double()
        if node.op_type == "MatMulNBits":
            block = int(node.attributes["block_size"].value)
        else:
            block = activation_block(weight.block)
        matrix = torch.from_numpy(weight.dequantise()).double().mT
        wanted, unrounded = rounded(x, block) @ matrix, x.double() @ matrix
        error, gap = (float((each - wanted).norm() / wanted.norm()) for each in (y, unrounded))
        assert error < RELATIVE < 1e-3 < gap  # learnt levels have two digits of 8 bits in C++: 3e-5


def rounded(x: torch.Tensor, block: int) -> torch.Tensor:
    """(..., K) fp32 -> fp64: each block of a row in whole steps of a 127th of its largest number."""
    inner = x.shape[-1]
    blocks = torch.nn.functional.pad(x, (0, -inner % block)).unflatten(-1, (-1, block))
    step = blocks.abs().amax(dim=-1, keepdim=True) / 127
    whole = torch.round(blocks / torch.where(step == 0, 1, step))
    return (whole.double() * step.double()).flatten(-2)[..., :inner]
