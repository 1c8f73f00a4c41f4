"""What depends on where a token stood: tables of positions and local attention, followed through reductions by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from edgetok import graph as g
from edgetok import technique
from edgetok.errors import Refusal
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.normalise import normalise
from edgetok.view import TransformerView
from edgetok.view.flow import Flow, Table
from edgetok.view.masks import Mask, Masking, classify
from edgetok.view.positions import local_bias, place_tables
from edgetok.view.stage import Stage
from tests import families
from tests.comparison import compare, reduce, run, session

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
PLACES = torch.tensor([[0, 3, 1], [0, 2, 3]])  # where the three tokens of two samples stood among four


def graph_of(*inputs: ir.Value) -> ir.Graph:
    return ir.Graph(list(inputs), [], nodes=[], opset_imports={"": g.OPSET}, name="main")


def value(name: str, dtype: ir.DataType, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def outputs(graph: ir.Graph, output: ir.Value, feeds: dict[str, torch.Tensor]) -> torch.Tensor:
    output.name = "y"
    graph.outputs.append(output)
    return run(session(ir.Model(graph, ir_version=g.IR_VERSION)), feeds)["y"]


@pytest.mark.parametrize(
    ("shape", "axis", "cut"),
    [
        ((4, 2), 2, 0),
        ((1, 1, 4, 2), 2, 0),
        ((1, 3, 4, 2), 2, 0),
        ((2, 1, 4, 2), 2, 0),
        ((2, 4, 1, 2), 1, 0),
        ((3, 2), 2, 1),
    ],
)
def test_rows_of_a_table(shape: tuple[int, ...], axis: int, cut: int):
    """Tables with and without axes in front, of all samples or of each; the first token may have no row."""
    table = torch.arange(float(np.prod(shape))).reshape(shape)
    batched = len(shape) == 4 and shape[0] != 1
    rows = [3 - cut if at == axis - 1 else 1 for at in range(3)]
    x = value("x", FLOAT, ("batch", *rows))
    t, places = value("t", FLOAT, ("batch", *shape[1:]) if batched else shape), value("places", INT64, ("batch", 3))
    graph = graph_of(x, t, places)
    node = g.Emitter(graph).Mul(x, t).producer()
    flow = Flow(tables=[Table(t, node, 1, 4, axis, cut, 0)])
    place_tables(graph, flow, 1, Stage(3, positions=places))
    assert node.inputs[1] is t, "a table of another stage is touched"
    place_tables(graph, flow, 0, Stage(3, positions=places))
    graph.sort()
    ones = torch.ones(2, *rows)
    got = outputs(graph, node.outputs[0], {"x": ones, "t": table, "places": PLACES})
    full = table.reshape((1,) * (4 - len(shape)) + shape).expand(2, -1, -1, -1)
    wanted = [full[b].index_select(axis - 1, PLACES[b, cut:] - cut) for b in range(2)]
    assert torch.equal(got, torch.stack(wanted))


def test_distances_are_those_of_the_original_places():
    places, keys = value("places", INT64, ("batch", 3)), value("keys", FLOAT, ("batch", 1, 1, 3))
    graph = graph_of(places, keys)
    stage = Stage(3, positions=places)
    bias = local_bias(g.Emitter(graph), stage, 1, keys, FLOAT)
    assert local_bias(g.Emitter(graph), stage, 1, keys, FLOAT) is bias, "blocks share it"
    got = outputs(graph, bias, {"places": PLACES, "keys": torch.tensor([[[[0.0, 0.5, 0.25]]], [[[0.0, -1e4, 0.5]]]])})
    far = -1e4
    assert got[0, 0].tolist() == [[0, far, 0.25], [far, 0.5, far], [0, far, 0.25]]  # at 0, 3, 1
    assert got[1, 0].tolist() == [[0, far, far], [far, far, 0.5], [far, far, 0.5]]  # at 0, 2 (padding), 3


class Turning(torch.nn.Module):
    """Two blocks whose queries and keys are turned by ONNX's own RotaryEmbedding, by positions that are an input."""

    def __init__(self, cached: bool):
        super().__init__()
        self.cached = cached
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 48) for _ in range(2))
        self.mlps = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))
        angles = torch.arange(40.0)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        for index in range(2):
            x = x + self.attend(x, positions, index)
            x = x + self.mlps[index](x).relu()
        return x[:, 0]

    def attend(self, x: torch.Tensor, positions: torch.Tensor, index: int) -> torch.Tensor:
        q, k, v = self.layers[index](x).reshape(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.turn(q, positions), self.turn(k, positions)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return attended.transpose(1, 2).reshape(x.shape)

    def turn(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self.cached:
            return torch.onnx.ops.rotary_embedding(x, self.cos, self.sin, positions)
        return torch.onnx.ops.rotary_embedding(x, self.cos[positions], self.sin[positions])

    def reduced(self, x: torch.Tensor, positions: torch.Tensor, stay: torch.Tensor) -> torch.Tensor:
        """The same with the tokens dropped behind the attention of block 0 that do not stay."""
        x = x + self.attend(x, positions, 0)
        x, positions = x.gather(1, stay[..., None].expand(-1, -1, 16)), positions.gather(1, stay)
        x = x + self.mlps[0](x).relu()
        x = x + self.attend(x, positions, 1)
        return (x + self.mlps[1](x).relu())[:, 0]


@pytest.mark.parametrize("cached", [True, False])
def test_positions_that_are_an_input(cached: bool):
    torch.manual_seed(0)
    module = Turning(cached).eval()
    draw = torch.Generator().manual_seed(1)
    x, positions = (
        torch.randn(3, 12, 16, generator=draw),
        torch.stack([torch.randperm(40, generator=draw)[:12] for _ in range(3)]),
    )
    captured = capture_module(module, {"x": x[:2], "positions": positions[:2]}, Origin("callable", "turning")).model
    assert any(node.op_type == "RotaryEmbedding" for node in captured.graph)
    graph = reduce(ir.to_proto(captured).SerializeToString(), technique.parse("random:r=5,layers=0"))
    for batch in (1, 3):
        got, (choice,) = graph.run({"x": x[:batch], "positions": positions[:batch]})
        with torch.no_grad():
            wanted = module.reduced(x[:batch], positions[:batch], choice.order[:, :7])
            moved_up = module.reduced(x[:batch], positions[:batch], torch.arange(7).expand(batch, -1))
        (name,) = got
        torch.testing.assert_close(got[name], wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(got[name], moved_up, rtol=1e-2, atol=1e-2)


class ByPlace(Turning):
    """Two blocks that turn by the tokens' places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x, torch.arange(12).expand(x.shape[0], -1))


def test_one_rotary_table_serves_every_batch():
    """PyTorch's exporter writes tables of batch 1 where they are long, and refuses them in short."""
    torch.manual_seed(0)
    module = ByPlace(cached=False).eval()
    x, places = torch.randn(3, 12, 16), torch.arange(12).expand(3, -1)
    model = capture_module(module, {"x": x[:2]}, Origin("callable", "turning")).model
    for node in model.graph:
        if node.op_type == "RotaryEmbedding":
            for place, table in ((1, module.cos), (2, module.sin)):
                node.replace_input_with(place, g.constant(model.graph, table[None, :12].numpy()))
    normalise(model)
    (got,) = run(session(model), {"x": x}).values()
    torch.testing.assert_close(got, module(x), rtol=1e-4, atol=1e-5)
    graph = reduce(ir.to_proto(model).SerializeToString(), technique.parse("random:r=5,layers=0"))
    reduced, (choice,) = graph.run({"x": x})
    wanted = module.reduced(x, places, choice.order[:, :7])
    torch.testing.assert_close(*reduced.values(), wanted, rtol=1e-4, atol=1e-5)


def local(**kw: object) -> tuple[bytes, torch.nn.Module]:
    torch.manual_seed(0)
    module = families.spread(families.modernbert(**kw))
    model = capture_module(module, families.words(), Origin("callable", "local")).model
    return ir.to_proto(model).SerializeToString(), module


@pytest.mark.parametrize("spec", ["tome:r=5", "random:r=5"])
def test_every_block_is_local(spec: str):
    """There is no block whose mask is that of the padding alone."""
    data, module = local(local_attention=34, layer_types=["sliding_attention"] * 4)
    assert {block.reach for block in TransformerView.of(ir.from_proto(onnx.ModelProto.FromString(data))).blocks} == {17}
    compare(reduce(data, technique.parse(spec)), "modernbert-local", module, families.feeds("modernbert-local", 3))


@pytest.mark.parametrize("spec", ["tome:r=5", "random:r=5"])
def test_padding_out_of_every_reach_stays_barred(spec: str):
    """Queries of padding that reach no token at all give finite numbers, and change nothing."""
    data, _ = local(local_attention=8)
    graph, feeds = reduce(data, technique.parse(spec)), families.feeds("modernbert-local", 3)
    real = feeds["attention_mask"].bool()
    other = feeds | {"input_ids": torch.where(real, feeds["input_ids"], 7)}
    (first, _), (second, _) = graph.run(feeds), graph.run(other)
    a, b = first["last_hidden_state"], second["last_hidden_state"]
    assert a.isfinite().all()
    torch.testing.assert_close(a[real], b[real], rtol=1e-5, atol=1e-5)


def masked(allowed: np.ndarray, padding: bool) -> Masking:
    mask = value("attention_mask", INT64, ("batch", allowed.shape[-1]))
    graph = graph_of(mask)
    op = g.Emitter(graph)
    row = op.Cast(op.Unsqueeze(mask, np.array([1, 2])), to=ir.DataType.BOOL)
    out = op.And(row, allowed[None, None]) if padding else op.Identity(allowed[None, None])
    out.name = "mask"
    return classify(graph, out)


def test_what_local_masks_are():
    distance = np.abs(np.arange(12)[:, None] - np.arange(12))
    assert masked(distance <= 3, padding=False) == Masking(Mask.NONE, reach=3)
    assert masked(distance <= 3, padding=True) == Masking(Mask.KEY_PADDING, reach=3)
    assert masked(distance <= 11, padding=True) == Masking(Mask.KEY_PADDING)
    assert masked(distance % 4 == 0, padding=True) == Masking(Mask.PAIRS)  # strided
    assert masked(np.arange(12)[:, None] // 4 == np.arange(12) // 4, padding=False) == Masking(Mask.PAIRS)  # blocks
    assert masked((distance <= 3) | (np.arange(12) == 0), padding=False) == Masking(Mask.PAIRS)  # a global token


def test_a_pattern_of_pairs_is_refused():
    model = ir.from_proto(onnx.ModelProto.FromString(families.captured("modernbert-unmasked")[0]))
    view = TransformerView.of(model)
    blocks = np.arange(32)[:, None] // 8 == np.arange(32) // 8
    mask = g.constant(model.graph, blocks[None, None])
    for block in view.blocks:
        block.attention.resize_inputs(4)
        block.attention.replace_input_with(3, mask)
    with pytest.raises(Refusal, match="bars pairs of positions, and not by their distance alone") as caught:
        TransformerView.of(model).check({view.blocks[0].after_attention: 0})
    assert caught.value.node == view.blocks[0].attention.name
    assert caught.value.way_out == "token reduction needs attention over all tokens, or over those within one distance"
