"""Against arrays made with the published code of ToMe and PiToMe (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn import functional

from edgetok import graph as g
from edgetok import plugins, technique
from edgetok.exporters import pitome
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.plugins import merge_tokens
from edgetok.technique import State
from edgetok.transform import transform
from edgetok.view.site import Site
from tests.comparison import run, session

GOLDEN = Path(__file__).parent / "golden"
VALUES = 2e-5  # the published code ran in fp32


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def state(golden: dict[str, torch.Tensor], block: int = 0, blocks: int = 1) -> State:
    batch, tokens, _ = golden["x"].shape
    heads = [golden["metric"][:, None]] * 3
    ones, zeros = torch.ones(batch, tokens, 1), torch.zeros(batch, 1, 1, tokens)
    return State(golden["x"], ones, *heads, zeros, 1.0, int(golden["class_token"]), block, blocks)


def rows(order: torch.Tensor, destination: torch.Tensor) -> torch.Tensor:
    """For each token the row it ended in."""
    stay = torch.arange(order.shape[1] - destination.shape[1]).expand(len(order), -1)
    return torch.empty_like(order).scatter_(1, order, torch.cat([stay, destination], dim=1))


def spread(merged: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(B, N, C): for each token what stands in its row."""
    return merged.gather(1, where[..., None].expand(-1, -1, merged.shape[2]))


@pytest.mark.parametrize("name", ["tome_bsm_r13", "tome_bsm_small_r7"])
def test_tome(name: str):
    golden = arrays(name)
    tome = technique.load("tome")
    chosen = tome.reference(state(golden), int(golden["r"]), tome.config())
    order, destination = chosen.order, chosen.destination
    assert torch.equal(rows(order, destination), golden["token_to_merged"].long())
    merged, size = merge_tokens.reference(golden["x"], torch.ones(*golden["x"].shape[:2], 1), order, destination)
    torch.testing.assert_close(merged, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(size, golden["size_out"])


def test_pitome():
    golden = arrays("pitome_full_r0.925")
    block, blocks = 2, 3  # a block of the second half, whose margin is a third of the first one's
    config = pitome.Config(margin=3 * float(golden["margin"]), variant="code")
    unit = functional.normalize(golden["metric"][:, 1:], dim=-1)
    energy = pitome.energies(unit, torch.zeros(1, 196), config.at(block, blocks), config)
    torch.testing.assert_close(energy, golden["energy"], rtol=0, atol=1e-6)
    chosen = pitome.reference(state(golden, block, blocks), int(golden["idx_r"]), config)
    merged, size = merge_tokens.reference(golden["x"], torch.ones(1, 197, 1), chosen.order, chosen.destination)
    torch.testing.assert_close(merged, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(size, golden["size_out"])


def run_graph_form(
    asked: technique.Spec, x: torch.Tensor, keys: torch.Tensor, block: int, blocks: int
) -> dict[str, torch.Tensor]:
    """What a technique's graph form chooses behind one class token, and MergeTokens' outputs, on onnxruntime."""
    feeds = {"x": x, "keys": keys}
    inputs = [g.typed(ir.Value(name=key), ir.DataType.FLOAT, value.shape) for key, value in feeds.items()]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": g.OPSET}, name="one")
    op, tokens, count = g.Emitter(graph), x.shape[1], int(asked.schedule.r)
    hidden, key = inputs
    site = Site(
        op, hidden, batched=hidden, query=key, key=key, value=key, attention=None, size=None, padded=False,
        tokens=tokens, prefix=1, count=count, block=block, blocks=blocks,
    )  # fmt: skip
    chosen = technique.load(asked.name).select(site, asked.config)
    ones = np.ones((*x.shape[:2], 1), np.float32)
    merged, size = op.MergeTokens(
        hidden, ones, chosen.order, chosen.destination, domain="edgetok", kept=tokens - count, outputs=2
    )
    outputs = {"order": chosen.order, "destination": chosen.destination, "x_merged": merged, "size_out": size}
    for name, value in outputs.items():
        value.name = name
        kind, rank = (ir.DataType.FLOAT, 3) if value in (merged, size) else (ir.DataType.INT64, 2)
        graph.outputs.append(g.typed(value, kind, [None] * rank))
    model = ir.Model(graph, ir_version=g.IR_VERSION)
    plugins.add_functions(model)
    return run(session(model), feeds)


@pytest.mark.parametrize(
    ("name", "spec", "block", "blocks"),
    [
        ("tome_bsm_r13", "tome:r=13", 0, 1),
        ("tome_bsm_small_r7", "tome:r=7", 0, 1),
        ("pitome_full_r0.925", "pitome:r=14,variant=code,margin=0.9", 1, 2),  # a block of the second half, at 0.45
    ],
)
def test_graph_forms(name: str, spec: str, block: int, blocks: int):
    """The same tokens end in the same rows, with the same values."""
    golden, asked = arrays(name), technique.parse(spec)
    got = run_graph_form(asked, golden["x"], golden["metric"][:, None], block, blocks)
    ours, theirs = rows(got["order"], got["destination"]), golden["token_to_merged"].long()
    if asked.name == "tome":  # PiToMe's rows stand in the order of energies, which lie 1e-6 apart
        assert torch.equal(ours, theirs)
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):  # each row of ours belongs to one of theirs
        assert len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))
    for key in ("x_merged", "size_out"):
        ours_spread, theirs_spread = spread(got[key], ours), spread(golden[key], theirs)
        torch.testing.assert_close(ours_spread, theirs_spread, rtol=0, atol=VALUES)


class Block(torch.nn.Module):
    """A pre-norm transformer block with the weights `w{index}.*`."""

    def __init__(self, weights: dict[str, torch.Tensor], index: int):
        super().__init__()
        self.heads = int(weights["num_heads"])
        for name, value in weights.items():
            if name.startswith(f"w{index}."):
                self.register_buffer(name.split(".", 1)[1].replace(".", "_"), value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        y = functional.layer_norm(x, (width,), self.norm1_weight, self.norm1_bias, 1e-6)
        qkv = functional.linear(y, self.attn_qkv_weight, self.attn_qkv_bias)
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + functional.linear(y, self.attn_proj_weight, self.attn_proj_bias)
        y = functional.layer_norm(x, (width,), self.norm2_weight, self.norm2_bias, 1e-6)
        y = functional.gelu(functional.linear(y, self.mlp_fc1_weight, self.mlp_fc1_bias))
        return x + functional.linear(y, self.mlp_fc2_weight, self.mlp_fc2_bias)


class Stack(torch.nn.Module):
    """Blocks whose first token is read by its place, as a class token is."""

    def __init__(self, weights: dict[str, torch.Tensor], depth: int):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block(weights, index) for index in range(depth))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for block in self.blocks:
            x = block(x)
        return {"x": x, "cls": x[:, 0]}


def run_stack(golden: dict[str, torch.Tensor], depth: int, spec: str) -> dict[str, np.ndarray]:
    """The stack through capture and view, its tokens reduced, on plain onnxruntime."""
    x = golden["x_in"]
    captured = capture_module(Stack(golden, depth), {"x": x}, Origin("callable", "stack"))
    transform(captured.model, [technique.parse(spec)], dtype="fp32", emit="reduced")
    plugins.add_functions(captured.model)
    session = onnxruntime.InferenceSession(ir.to_proto(captured.model).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x.numpy()}), strict=True))


def check_stack(name: str, depth: int, spec: str) -> None:
    golden = arrays(name)
    got = run_stack(golden, depth, spec)
    wanted = golden[f"x_{depth - 1}"].numpy()
    tokens = [array for array in got.values() if array.shape == wanted.shape]
    assert tokens, f"no output has the shape {wanted.shape}"
    np.testing.assert_allclose(tokens[0], wanted, rtol=0, atol=VALUES)
    np.testing.assert_allclose(got["token_size"], golden[f"size_{depth - 1}"].numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got["cls"], wanted[:, 0], rtol=0, atol=VALUES)


TOME = ("tome_blocks_prop", 3, "tome:r=5")
PITOME = ("pitome_blocks", 4, "pitome:ratio=0.85,variant=code,margin=0.75")


@pytest.mark.parametrize(("name", "depth", "spec"), [(TOME[0], 1, TOME[2]), (TOME[0], 2, TOME[2]), TOME, PITOME])
def test_blocks(name: str, depth: int, spec: str):
    check_stack(name, depth, spec)
