"""torch.nn.MultiheadAttention while a module is exported: what it gives, and blocks that are found and reduced."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from torch import nn

from edgetok import technique
from edgetok.api.samples import run_graph
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.fidelity import compare_outputs
from edgetok.model import Origin
from edgetok.modules.multihead_attention import OneNode, one_node_each
from edgetok.plugins import add_functions
from edgetok.transform import transform
from edgetok.view import TransformerView

PADDING = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
CAUSAL = torch.ones(7, 7, dtype=torch.bool).triu(1)
MASKS = {
    "none": {},
    "padding": {"key_padding_mask": PADDING},
    "causal": {"attn_mask": CAUSAL},
    "both": {"key_padding_mask": PADDING, "attn_mask": CAUSAL},
    "added": {"attn_mask": torch.linspace(-1, 1, 49).reshape(7, 7), "key_padding_mask": PADDING},
    "of each head": {"attn_mask": torch.linspace(-1, 1, 2 * 4 * 49).reshape(8, 7, 7)},
}


@pytest.mark.filterwarnings("ignore:Support for mismatched")  # torch's own, of "added"
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("same", [True, False], ids=["self", "cross"])
def test_it_gives_what_torch_gives(masks, batch_first, same):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(32, 4, batch_first=batch_first, bias=same).eval()
    axes = (2, 7, 32) if batch_first else (7, 2, 32)
    query = torch.randn(axes)
    streams = [query, query, query] if same else [query, torch.randn(axes), torch.randn(axes)]
    wanted, weights = module(*streams, **masks)
    with one_node_each(module):
        assert type(module) is OneNode
        got, ours = module(*streams, **masks)
        of_each_head = module(*streams, **masks, average_attn_weights=False)[1]
        assert module(*streams, **masks, need_weights=False)[1] is None
    assert type(module) is nn.MultiheadAttention
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(ours, weights)
    torch.testing.assert_close(of_each_head.mean(1), weights)


def test_without_a_batch():
    module = nn.MultiheadAttention(32, 4).eval()
    x = torch.randn(7, 32)
    wanted = module(x, x, x)[0]
    with one_node_each(module):
        torch.testing.assert_close(module(x, x, x)[0], wanted)


def test_what_computes_otherwise_is_left_as_it_is():
    class Own(nn.MultiheadAttention):
        pass

    others = nn.MultiheadAttention(8, 2, kdim=4), nn.MultiheadAttention(8, 2, add_bias_kv=True), Own(8, 2)
    module = nn.ModuleList([*others, nn.MultiheadAttention(8, 2, add_zero_attn=True)])
    with one_node_each(module):
        assert not any(isinstance(each, OneNode) for each in module)


class Encoder(nn.Module):
    """Patches of a picture through torch's own encoder."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, stride=8)
        layer = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(pixels).flatten(2).mT).mean(dim=1))


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_encoder_is_reduced(norm_first):
    torch.manual_seed(0)
    module = Encoder(norm_first).eval()
    captured = capture_module(module, {"pixels": torch.randn(2, 3, 64, 64)}, Origin("callable", "encoder"))
    graph, view = captured.model, TransformerView.of(captured.model)
    assert captured.outputs[0].shape == ("batch", 10)
    assert len(view.blocks) == 3
    done = transform(graph, [technique.parse("tome:r=8")], dtype="fp32", emit="full")
    assert [step.tokens_out for step in done.schedule] == [56, 48, 40]
    assert all(type(each.self_attn) is nn.MultiheadAttention for each in module.encoder.layers)


def test_a_head_that_pools_by_a_learnt_query_is_no_block():
    """SigLIP's: its one query is a weight, and its keys are all tokens, which are given back for it."""
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    module = tf.SiglipVisionModel(tf.SiglipVisionConfig(**size, image_size=64, patch_size=8)).eval()
    captured = capture_module(module, {"pixel_values": torch.randn(2, 3, 64, 64)}, Origin("callable", "siglip"))
    assert [each.shape for each in captured.outputs] == [("batch", 64, 64), ("batch", 64)]
    wanted = captured.reference(captured.example)
    done = transform(captured.model, [technique.parse("tome:r=8")], dtype="fp32", emit="full")
    assert [step.tokens_out for step in done.schedule] == [56, 48, 40]
    add_functions(captured.model)
    near = compare_outputs(run_graph(captured.model, captured.inputs, captured.example), wanted)
    assert {each.output for each in near} == {"last_hidden_state", "pooler_output"}
    assert all(0.95 < each.cosine < 1 for each in near), near
