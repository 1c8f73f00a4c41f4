"""Against arrays made with the published code of ToMe and PiToMe (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.nn import functional

from edgetok import plugins, technique
from edgetok.exporters import pitome
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.technique import State
from edgetok.transform import transform
from tests import alone
from tests.alone import reduced

GOLDEN = Path(__file__).parent / "golden"
VALUES = 2e-5  # the published code ran in fp32


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def state(golden: dict[str, torch.Tensor], block: int = 0, blocks: int = 1) -> State:
    keys, prefix = golden["metric"][:, None], int(golden["class_token"])
    return alone.state(golden["x"], keys=keys, prefix=prefix, block=block, blocks=blocks)


def rows(order: torch.Tensor, destination: torch.Tensor) -> torch.Tensor:
    """For each token the row it ended in."""
    stay = torch.arange(order.shape[1] - destination.shape[1]).expand(len(order), -1)
    return torch.empty_like(order).scatter_(1, order, torch.cat([stay, destination], dim=1))


@pytest.mark.parametrize("name", ["tome_bsm_r13", "tome_bsm_small_r7"])
def test_tome(name: str):
    golden = arrays(name)
    out = reduced("tome", state(golden), int(golden["r"]))
    assert torch.equal(rows(out.choice.order, out.choice.destination), golden["token_to_merged"].long())
    torch.testing.assert_close(out.hidden, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(out.size, golden["size_out"])


@pytest.mark.parametrize(("block", "blocks"), [(2, 3), (1, 2)])
def test_pitome(block: int, blocks: int):
    """Blocks of the second half, whose margin is a third, or half, of the first one's."""
    golden = arrays("pitome_full_r0.925")
    config = pitome.Config(margin=blocks * float(golden["margin"]), variant="code")
    unit = functional.normalize(golden["metric"][:, 1:], dim=-1)
    energy = pitome.energies(unit, torch.zeros(1, 196), config.at(block, blocks), config)
    torch.testing.assert_close(energy, golden["energy"], rtol=0, atol=1e-6)
    out = reduced("pitome", state(golden, block, blocks), int(golden["idx_r"]), margin=config.margin, variant="code")
    assert torch.equal(rows(out.choice.order, out.choice.destination), golden["token_to_merged"].long())
    torch.testing.assert_close(out.hidden, golden["x_merged"], rtol=0, atol=VALUES)
    torch.testing.assert_close(out.size, golden["size_out"])


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
        return {"tokens": x, "cls": x[:, 0]}


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
