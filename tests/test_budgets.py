"""`--attention auto`: what it measures, against torch, and what it picks by that."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

from edgetok import attention, budgets, plugins
from edgetok.attention import AttentionState
from edgetok.errors import Refusal, UsageError
from edgetok.retype import retype
from edgetok.transform import transform
from edgetok.view import TransformerView
from tests import families, hooks
from tests.comparison import run, session
from tests.families import captured


def on_samples(family: str):
    """Runs a graph on a family's inputs."""

    def made(model: ir.Model) -> dict[str, np.ndarray]:
        plugins.add_functions(model)
        return {name: value.numpy() for name, value in run(session(model), families.feeds(family, 2)).items()}

    return made


def model_of(family: str) -> ir.Model:
    model = ir.from_proto(onnx.ModelProto.FromString(captured(family)[0]))
    retype(model, "fp32")
    return model


@pytest.mark.parametrize("family", ["deit", "llama", pytest.param("bert", marks=pytest.mark.more)])
def test_the_kept_mass_is_what_torch_gives_to_the_listed_keys(family, monkeypatch):
    measured = budgets.kept_mass(
        TransformerView.of(model_of(family)), attention.parse("block-topk:density=1,block=16"), on_samples(family)
    )
    module, feeds = captured(family)[1], families.feeds(family, 2)
    config, found = attention.parse("block-topk:density=0.4,block=16").config, []
    causal = family == "llama"
    prefix = 0 if causal else hooks.PREFIX[family]

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        batch, _, tokens, width = query.shape
        real = torch.ones(batch, tokens) if attn_mask is None else attn_mask[:, 0, -1].expand(batch, -1).float()
        scale = width**-0.5 if scale is None else scale
        state = AttentionState(query, key, real[..., None], scale, prefix, causal)
        seen = attention.load("block-topk").reference(state, config)
        scores = (query @ key.mT * scale).masked_fill(real[:, None, None] == 0, -1e4)
        if causal:
            scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), -torch.inf)
        weights = scores.softmax(dim=-1)
        first = -(-prefix // 16) * 16
        asks = real[:, None, first:].expand(-1, weights.shape[1], -1)
        found.append((((weights * seen).sum(dim=-1)[..., first:] * asks).sum() / asks.sum()).item())
        return weights @ value

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(functional, "scaled_dot_product_attention", attend)
        module(**feeds)
    count = config.count(len(measured[0]))
    assert [float(curve[count - 1]) for curve in measured.values()] == pytest.approx(found, abs=1e-4)
    assert all(curve[-1] == pytest.approx(1, abs=1e-5) for curve in measured.values())


def test_the_shortest_lists_that_hold_the_mass_are_picked_and_told():
    view, measure = TransformerView.of(model_of("deit")), on_samples("deit")
    full = "block-topk:density=1,means=true,block=16"
    rows, tiles = (budgets.kept_mass(view, attention.parse(full + order), measure) for order in ("", ",tiles=4"))
    tiled = sum(curve.mean() for curve in tiles.values()) > sum(curve.mean() for curve in rows.values())
    curves = tiles if tiled else rows
    mass = float(np.sort(np.concatenate([curve[2:4] for curve in curves.values()]))[2])
    model = model_of("deit")
    asked = attention.parse_all(f"auto:mass={mass:.6f},block=16")
    done = transform(model, [], dtype="fp32", emit="full", attention=asked, run=measure)
    assert done.sparse and all(each.technique == "block-topk" and each.mass >= mass - 1e-6 for each in done.sparse)
    assert all(spec.config.means and bool(spec.shared.tiles) == tiled for spec in done.attention)
    for each in done.sparse:
        config = next(spec.config for spec in done.attention if str(each.block) in spec.shared.layers.split("/"))
        count = config.count(len(curves[each.block]))
        assert count == 3 or curves[each.block][count - 2] < mass + 1e-6
    again = model_of("deit")
    text = "+".join(map(str, done.attention))
    transform(again, [], dtype="fp32", emit="full", attention=attention.parse_all(text))
    assert [node.op_type for node in again.graph] == [node.op_type for node in model.graph]  # the recipe says it all


@pytest.mark.more
@pytest.mark.parametrize("family", ["deit", "whisper", "bert", "clip-text"])
def test_the_cosine_asked_for_is_reached(family):
    measure = on_samples(family)
    dense = measure(model_of(family))
    model = model_of(family)
    transform(
        model, [], dtype="fp32", emit="full", attention=attention.parse_all("auto:min-cosine=0.9,block=16"), run=measure
    )
    got = measure(model)
    for name in got:
        a, b = torch.from_numpy(got[name]), torch.from_numpy(dense[name])
        assert functional.cosine_similarity(a, b, dim=-1).mean() >= 0.9


def test_what_auto_refuses():
    with pytest.raises(UsageError, match="not both"):
        attention.parse_all("auto:mass=0.9,min-cosine=0.9")
    with pytest.raises(UsageError, match="stands alone"):
        attention.parse_all("auto+window")
    with pytest.raises(Refusal, match="there are none"):
        transform(model_of("deit"), [], dtype="fp32", emit="full", attention=attention.parse_all("auto:block=16"))
    with pytest.raises(UsageError, match="two sparse attentions name block 1"):
        twice = attention.parse_all("window:block=16,layers=1+block-topk:block=16,layers=1-2")
        transform(model_of("deit"), [], dtype="fp32", emit="full", attention=twice)
