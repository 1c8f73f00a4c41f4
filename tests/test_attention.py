"""Sparse attention in whole models: the graph against the original module whose attention is masked."""

import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

import edgetok
from edgetok import attention, plugins, technique
from edgetok.attention import AttentionState
from edgetok.errors import Refusal, UnknownName, UsageError
from edgetok.transform import transform
from edgetok.view import tiles
from tests import families, hooks
from tests.comparison import run, session
from tests.families import captured

SPECS = [spec for name in attention.names() for spec in attention.load(name).examples]
FIRST = [attention.load(name).examples[0] for name in attention.names()]
OTHERS = [spec for spec in SPECS if spec not in FIRST]
CAUSAL = ("llama", "clip-text")
QUICK, MORE = ("deit", "llama"), ("dinov2-registers", "whisper", "bert", "clip-text")


def sparse(family: str, text: str, reduce: tuple[str, ...] = (), dtype: str = "fp32", feeds=None):
    """A captured graph whose attention is sparse, as transform makes it, and what it did."""
    model = ir.from_proto(onnx.ModelProto.FromString(captured(family)[0]))
    specs = [technique.parse(each) for each in reduce]
    feeds = families.feeds(family, 2) if feeds is None else feeds

    def on_samples(model: ir.Model) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in run(session(model), feeds).items()}

    done = transform(model, specs, dtype=dtype, emit="full", attention=attention.parse_all(text), run=on_samples)
    plugins.add_functions(model)
    return model, done


def importance(query: torch.Tensor, key: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """(samples, h, d): what double-sparsity measures."""
    return ((query * key).abs() * size[:, None]).sum(dim=2) / size.sum(dim=1)[:, None]


def masked(text: str, prefix: int, causal: bool, ids: torch.Tensor | None = None, measured=None, dense=False):
    """torch's attention, with the reference's mask: it knows nothing of the graph.

    `dense`: attention as it was, and what is measured of each block is put behind `measured`.
    """
    spec = attention.parse(text)
    chosen = attention.load(spec.name)
    blocks = itertools.count()

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        batch, _, tokens, width = query.shape
        order = torch.arange(tokens)
        if spec.shared.tiles:
            order = torch.from_numpy(tiles.order(tokens, prefix, spec.shared.tiles))
            query, key, value = (each[:, :, order] for each in (query, key, value))
        size = torch.ones(batch, tokens, 1, dtype=query.dtype)
        if attn_mask is not None:
            size = attn_mask[:, 0, -1, :, None].expand(batch, -1, -1).to(query.dtype)
        scale = width**-0.5 if scale is None else scale
        state = AttentionState(query, key, size, scale, prefix, causal, ids)
        if dense:
            measured.append(importance(query, key, size))
            seen = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)
        else:
            own = next(blocks)
            state = replace(state, measured=measured[own] if measured else None)
            seen = chosen.reference(state, spec.config)
        if causal:
            seen[..., :tokens] &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
        padding = torch.where(size.mT[:, None] > 0, 0.0, -1e4)
        if chosen.pooled is not None and not dense:
            more_keys, more_values, sizes = chosen.pooled(state, value, spec.config)
            key, value = torch.cat([key, more_keys], dim=2), torch.cat([value, more_values], dim=2)
            padding = torch.cat([padding, sizes[:, None, None].log().clamp_min(-1e4)], dim=3)
        scores = query @ key.mT * scale
        attended = (scores + padding).masked_fill(~seen, -torch.inf).softmax(dim=-1) @ value
        return attended[:, :, order.argsort()]

    return attend


def agree(family, text, native, monkeypatch, batch=2, padded=False):
    _, module = captured(family)
    feeds = families.feeds(family, batch)
    if padded:
        feeds["attention_mask"] = feeds["attention_mask"].clone()
        feeds["attention_mask"][0, 20:] = 0
    model, _ = sparse(family, text, feeds=feeds)
    assert any(node.op_type in ("BlockSparseAttention", "TokenSparseAttention") for node in model.graph)
    got = run(session(model, native), feeds)
    causal = family in CAUSAL
    prefix = hooks.PREFIX.get(family, 1 if "input_ids" in feeds else 0)
    double, measured = {k: v.double() if v.is_floating_point() else v for k, v in feeds.items()}, []
    asked = attention.load(text.partition(":")[0]).measures is not None
    with monkeypatch.context() as patched, torch.no_grad():
        for dense in (True, False) if asked else (False,):
            attend = masked(text, prefix, causal, feeds.get("input_ids"), measured, dense)
            patched.setattr(functional, "scaled_dot_product_attention", attend)
            wanted = module.double()(**double).last_hidden_state
    module.float()
    value = got["last_hidden_state"]
    real = feeds["attention_mask"].bool() if padded else torch.ones(value.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(value[real].double(), wanted[real], rtol=1e-4, atol=1e-4)


TILED = ["block-topk:density=0.4,means=true,block=16,tiles=4", "hisa:density=0.5,part=8,block=16,tiles=3"]


@pytest.mark.parametrize("text", [TILED[0], pytest.param(TILED[1], marks=pytest.mark.more)])
@pytest.mark.parametrize("family", ["deit", pytest.param("dinov2-registers", marks=pytest.mark.more)])
def test_tiles_are_the_masked_module_with_its_tokens_sorted(family, text, monkeypatch, library):
    for native in (False, True):
        agree(family, text, native, monkeypatch)


@pytest.mark.parametrize(("side", "prefix", "height"), [(73, 1, 8), (37, 5, 8), (8, 0, 3), (1, 1, 8), (9, 2, 100)])
def test_a_tile_is_a_piece_of_the_picture(side, prefix, height):
    order = tiles.order(prefix + side * side, prefix, height)
    assert np.array_equal(np.sort(order), np.arange(prefix + side * side))
    assert np.array_equal(order[:prefix], np.arange(prefix))
    rows, columns = np.divmod(order[prefix:] - prefix, side)
    for start in range(0, side * side, height * height):
        block = slice(start, start + height * height)
        assert np.ptp(rows[block]) <= 2 * (height + 1) and np.ptp(columns[block]) <= 2 * (height + 1)


def serves(family: str, text: str) -> bool:
    kind = attention.load(text.partition(":")[0]).serves
    return kind in ("both", "causal models" if family in CAUSAL else "encoders and DiTs")


@pytest.mark.parametrize("text", [*FIRST, *(pytest.param(each, marks=pytest.mark.more) for each in OTHERS)])
@pytest.mark.parametrize("family", [*QUICK, *(pytest.param(each, marks=pytest.mark.more) for each in MORE)])
def test_the_graph_equals_the_masked_module(family, text, monkeypatch, library):
    if not serves(family, text):
        with pytest.raises(Refusal, match="serves "):
            sparse(family, text)
        return
    for native in (False, True):
        agree(family, text, native, monkeypatch)


@pytest.mark.parametrize("text", [*FIRST, "block-topk:density=0.4,means=true,block=16"])
@pytest.mark.parametrize("family", ["bert", pytest.param("llama", marks=pytest.mark.more)])
def test_padding_is_not_attended_to(family, text, monkeypatch):
    if not serves(family, text):
        pytest.skip("it serves other models")
    agree(family, text, False, monkeypatch, padded=True)


@pytest.mark.parametrize("family", [pytest.param("dinov2-registers", marks=pytest.mark.more), "bert"])
def test_behind_a_reduction_a_full_list_changes_nothing(family):
    """With all blocks on the lists it is the reduced model's own attention, sizes and padding included."""
    feeds = families.feeds(family, 2)
    if family == "bert":
        feeds["attention_mask"] = feeds["attention_mask"].clone()
        feeds["attention_mask"][1, 25:] = 0
    reduced = ir.from_proto(onnx.ModelProto.FromString(captured(family)[0]))
    transform(reduced, [technique.parse("tome:r=3")], dtype="fp32", emit="full")
    plugins.add_functions(reduced)
    both, done = sparse(family, "block-topk:density=1,block=16", reduce=("tome:r=3",))
    assert [each.tokens for each in done.sparse] == [step.tokens_in for step in done.schedule]
    for name, wanted in run(session(reduced), feeds).items():
        torch.testing.assert_close(run(session(both), feeds)[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "epsilon"), [("fp16", 2e-2), ("bf16", 8e-2)])
def test_half_precision(dtype, epsilon, library):
    feeds = families.feeds("deit", 2)
    whole = run(session(sparse("deit", FIRST[-1])[0]), feeds)["last_hidden_state"]
    for native in (False, True):
        got = run(session(sparse("deit", FIRST[-1], dtype=dtype)[0], native), feeds)["last_hidden_state"].float()
        assert (got - whole).norm() / whole.norm() < epsilon


def test_what_attends_is_told():
    _, done = sparse("deit", "block-topk:density=0.4,block=16,layers=1-2")
    assert [each.block for each in done.sparse] == [1, 2]
    assert all(each.size == 16 and each.tokens == 66 for each in done.sparse)
    assert done.sparse[0].density == pytest.approx((5 + 4 * 2) / 25)  # the first to all
    _, done = sparse("deit", "block-topk:density=0.4,means=true,block=16,layers=1")
    assert done.sparse[0].density == pytest.approx((5 + 4 * (3 + 1)) / 25)  # 3 and the means


REFUSED = [
    ("deit", "window:block=16", ("tome:r=3",), "goes by the places of tokens"),
    ("deit", "block-topk:block=128", (), "nothing is left to be sparse"),
    ("deit", "window:block=16,tiles=4", (), "goes by the places of tokens in their row"),
    ("deit", "block-topk:block=16,tiles=4", ("tome:r=3",), "were reduced"),
    ("deit", "block-topk:block=16,means=true", ("tome:r=3",), "stand for several"),
    ("llama", "block-topk:block=16,tiles=4", (), "is a causal model"),
    ("bert", "block-topk:block=16,tiles=4", (), "behind the first"),
    pytest.param("modernbert-local", "block-topk:block=16", (), "attention is local", marks=pytest.mark.more),
    pytest.param("beit", "block-topk:block=16", (), "bias that differs between queries", marks=pytest.mark.more),
]


@pytest.mark.parametrize(("family", "text", "reduce", "why"), REFUSED)
def test_what_cannot_be_sparse_is_refused(family, text, reduce, why):
    with pytest.raises(Refusal, match=why):
        sparse(family, text, reduce)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("windows", "no attention 'windows'"),
        ("window:size=0", "size=0: accepted is a number from 1"),
        ("window:global=-1", "global=-1: accepted is a number from 0"),
        ("window:block=24", "blocks of 16, 32, 64 and 128"),
        ("block-topk:density=2", "density=2.0: accepted is a number from 0.001 to 1"),
        ("window:layers=3-1", "accepted is a range such as 2-11"),
        ("window:wide=3", "no option"),
        ("block-topk:tiles=-1", "tiles=-1: accepted is a number from 0"),
        ("block-topk:means=1", "accepted are true and false"),
    ],
)
def test_wrong_specs(text, why):
    with pytest.raises((UsageError, UnknownName), match=why):
        attention.parse(text)


def test_the_canonical_spelling():
    assert str(attention.parse("window:global=1,size=256,layers=2-3")) == "window:global=1,layers=2-3"
    assert str(attention.parse("block-topk")) == "block-topk"
    text = "block-topk:means=true,layers=2-3,tiles=8"
    assert str(attention.parse(text)) == text


@pytest.mark.more
def test_a_bundle_holds_what_was_asked_and_checks_itself(tmp_path, library):
    """A real text encoder, padding included; its samples run with the C++ operators."""
    asked = "block-topk:density=0.5,block=32,layers=1-5"
    bundle = edgetok.export("zoo:minilm", out=tmp_path / "sparse", length=256, attention=asked, min_cosine=0.95)
    assert bundle.manifest.recipe.attention == "block-topk:density=0.5,block=32,layers=1-5"
    assert [each.block for each in bundle.manifest.sparse] == [1, 2, 3, 4, 5]
    with edgetok.load(tmp_path / "sparse") as model:
        model.check()
