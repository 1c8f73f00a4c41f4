"""What sparse attentions choose, against what published code chose."""

from dataclasses import replace

import onnx_ir as ir
import pytest
import torch

from edgetok import attention, plugins
from edgetok.attention import AttentionState
from edgetok.exporters.attention import _pieces, hisa, llsa, minference, quest, svg2, tokenselect, xattention
from edgetok.graph import Emitter
from edgetok.view.attention import key_bias
from edgetok.view.sparse import AttentionSite, attend_to
from tests.comparison import run, session
from tests.test_block_sparse_attention import arrays, drawn


def state(query: torch.Tensor, key: torch.Tensor, causal: bool, prefix: int = 0, ids: torch.Tensor | None = None):
    size = torch.ones(len(query), query.shape[2], 1, dtype=query.dtype)
    return AttentionState(query, key, size, query.shape[-1] ** -0.5, prefix, causal, ids)


def seen(text: str, given: AttentionState) -> torch.Tensor:
    """(B, h, N, N) bool: who sees whom by the reference, causality included."""
    spec = attention.parse(text)
    allowed = attention.load(spec.name).reference(given, spec.config)
    if given.causal:
        allowed[..., : allowed.shape[-2]] &= torch.ones([allowed.shape[-2]] * 2, dtype=torch.bool).tril()
    return allowed


def attended(mask: torch.Tensor) -> torch.Tensor:
    query, key, value = drawn()
    scores = query @ key.mT * 64**-0.5
    return scores.masked_fill(~mask[..., : scores.shape[-1]], -torch.inf).softmax(dim=-1) @ value


def graph(text: str, given: AttentionState):
    """(index, count, out): the lists that a graph makes of queries and keys, which are its values too, and what it
    attends to by them, the first blocks left out that attend to all."""
    spec, (_, heads, tokens, width) = attention.parse(text), given.queries.shape
    groups = given.keys.shape[1]
    inputs = {"q": given.queries, "k": given.keys, "size": given.size}
    values = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", *each.shape[1:]]))
        for name, each in inputs.items()
    ]
    if given.ids is not None:
        kind = ir.TensorType(ir.DataType.INT64)
        values.append(ir.Value(name="input_ids", type=kind, shape=ir.Shape(["batch", tokens])))
        inputs["input_ids"] = given.ids
    made = ir.Graph(values, [], nodes=[], opset_imports={"": 23}, name="choose")
    op, (query, key, size, *ids) = Emitter(made), values
    padded = bool((given.size != 1).any())
    site = AttentionSite(
        op, query, key, key, size if padded else None, given.scale, heads, groups, tokens, width, given.prefix,
        given.causal, ids[0] if ids else None,
        key_bias(op, size, proportional=True, padded=True) if padded else None,
        None if given.measured is None else given.measured.numpy(),
    )  # fmt: skip
    lists = attention.load(spec.name).lists(site, spec.config)
    _, out = attend_to(site, lists, spec.config.block)
    for name, value in (("index", lists.index), ("count", lists.count), ("out", out)):
        value.name = name
        value.type = ir.TensorType(ir.DataType.FLOAT if name == "out" else ir.DataType.INT32)
        made.outputs.append(value)
    model = ir.Model(made, ir_version=10)
    plugins.add_functions(model)
    fed = {value.name: inputs[value.name] for value in values}
    return run(session(model), fed), lists


def chosen(text: str, query: torch.Tensor, key: torch.Tensor, causal: bool, measured=None) -> torch.Tensor:
    """(B, h, Q, K) bool: the pairs of blocks on the lists that a graph makes of queries and keys."""
    found, lists = graph(text, replace(state(query, key, causal), measured=measured))
    side = attention.parse(text).config.block
    blocks = -(-key.shape[2] // (lists.block_k or side))
    counted = torch.arange(found["index"].shape[-1]) < found["count"][..., None]
    slots = torch.where(counted & (found["index"] < blocks), found["index"].long(), blocks)  # behind them: means
    assert not (counted & (found["index"] < 0)).any()
    return torch.zeros(*slots.shape[:3], blocks + 1, dtype=torch.bool).scatter_(3, slots, True)[..., :blocks]


def agrees(text: str, given: AttentionState) -> None:
    """The graph attends as the reference's mask says."""
    found, lists = graph(text, given)
    heads = given.queries.shape[1]
    keys = given.keys.repeat_interleave(heads // given.keys.shape[1], dim=1).double()
    double = replace(given, queries=given.queries.double(), keys=keys, size=given.size.double())
    size, spec, values = double.size[..., 0], attention.parse(text), keys
    if (pooled := attention.load(spec.name).pooled) is not None:
        more_keys, more_values, sizes = pooled(double, keys, spec.config)
        values, keys = torch.cat([keys, more_values], dim=2), torch.cat([keys, more_keys], dim=2)
        size = torch.cat([size, sizes], dim=1)
    scores = double.queries @ keys.mT * given.scale + size.clamp_min(1e-30).log()[:, None, None]
    weights = scores.masked_fill(~seen(text, double), -torch.inf).softmax(dim=-1)
    first = lists.whole * attention.parse(text).config.block
    got, wanted = found["out"].double(), (weights @ values)[:, :, first:]
    real = (given.size[:, None, first:] > 0).expand_as(got)  # what padding gives is nobody's concern
    torch.testing.assert_close(got[real], wanted[real], rtol=1e-4, atol=1e-4)


def clustered(heads: int = 4, groups: int = 2, tokens: int = 333) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, h, N, 64), (2, g, N, 64): runs of 16 tokens lie around one of twelve centres."""
    seeded = torch.Generator().manual_seed(tokens)
    centres = torch.randn(2, 1, 12, 64, generator=seeded) * 1.5
    own = torch.randint(0, 12, (-(-tokens // 16),), generator=seeded).repeat_interleave(16)[:tokens]
    noise = [torch.randn(2, count, tokens, 64, generator=seeded) * 0.5 for count in (heads, groups)]
    return centres[:, :, own] + noise[0], centres[:, :, own] + noise[1]


def test_streaming_sees_what_the_published_cache_holds():
    golden, (query, key, _) = arrays("streamingllm"), drawn()
    mask = seen("streaming:sinks=4,size=60", state(query, key, True))
    for step, kept in zip(golden["steps"].tolist(), golden["kept_positions"], strict=True):
        assert torch.equal(mask[0, 0, step].nonzero()[:, 0], kept[kept >= 0].long())
    wanted = golden["out_nope_t199_random"]
    torch.testing.assert_close(attended(mask)[:, :, 199:200], wanted, rtol=0, atol=1e-5)


def test_sepllm_sees_all_that_the_published_mask_does():
    """And beyond it only what rounding the window up to whole blocks adds."""
    golden, (query, key, _) = arrays("sepllm"), drawn()
    ids, place = golden["token_ids"].long(), torch.arange(400)
    mask = seen("sepllm:ids=13,init=3,size=64,block=16", state(query[:, :, :400], key[:, :, :400], True, ids=ids))[0, 0]
    behind = place[:, None] - place
    published = (behind >= 0) & ((place < 3) | (ids[0] == 13) | (behind < 64))
    rows = torch.arange(15, 400, 16)
    wanted = golden["out_rows_prefillmask_random"]
    padded = torch.nn.functional.pad(published, (0, 112))
    scores = (drawn()[0][:, :, rows] @ drawn()[1].mT * 64**-0.5).masked_fill(~padded[rows], -torch.inf)
    torch.testing.assert_close(scores.softmax(dim=-1) @ drawn()[2], wanted, rtol=0, atol=1e-5)  # it is the mask
    assert not (published & ~mask).any()
    more = mask & ~published
    assert behind[more].max() < 64 + 16 and more.any()


def test_xattention_chooses_what_the_published_code_does():
    """In a causal model, where both force the first block and the diagonal."""
    golden = arrays("xattention_random")
    query, key, _ = drawn()
    assert torch.equal(chosen("xattention:threshold=0.9", query, key, causal=True), golden["mask_causal"])
    for causal, name in ((True, "causal"), (False, "bidir")):
        state = AttentionState(query, key, torch.ones(1, 512, 1), 64**-0.5, 0, causal)
        shares = xattention.reference_shares(state, xattention.Config())
        torch.testing.assert_close(shares, golden[f"attn_sums_{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", ["block-topk:density=0.4,block=32", "xattention:threshold=0.5,block=32"])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys_choose_for_themselves(text, causal):
    query, key = (each[:, :, :333] for each in drawn()[:2])
    spec = attention.parse(text)
    spread = key[:, [0, 2]].repeat_interleave(2, dim=1)
    state = AttentionState(query.double(), spread.double(), torch.ones(1, 333, 1).double(), 64**-0.5, 0, causal)
    wanted = attention.load(spec.name).reference(state, spec.config)[..., ::32, ::32]
    assert torch.equal(chosen(text, query, key[:, [0, 2]], causal), wanted)


def test_sepllm_keeps_the_last_separators_of_a_block_that_has_more():
    query, key = clustered()
    ids = torch.randint(0, 3, (2, 333), generator=torch.Generator().manual_seed(0))
    agrees("sepllm:ids=1/2,init=3,size=40,most=16,block=64", state(query, key, True, ids=ids))


def test_minference_takes_the_published_columns_and_diagonals():
    golden, (query, key, _) = arrays("minference_random"), drawn()
    config = minference.Config(vertical=10, slash=30)  # published: 40 and 130, with those always taken
    columns, diagonals = minference.reference_lines(state(query, key, True), config)
    assert torch.equal(columns[0].sort().values, golden["vertical_idx"].sort().values.long())
    assert torch.equal(diagonals[0].sort().values, golden["slash_offsets"].sort().values.long())
    lines = "minference:vertical=10,slash=30,block=16"
    mask = seen(lines, state(query, key, True))
    shifts = torch.arange(8, dtype=torch.uint8).flip(0)
    published = (golden["vs_mask_rows"][..., None] >> shifts & 1).flatten(-2).bool()
    assert not (published & ~mask[:, :, golden["rows"].long()]).any()  # whole blocks: a superset
    assert torch.equal(chosen(lines, query, key, True), mask[..., 15::16, ::16])


def padded(given: AttentionState, *ends: int) -> AttentionState:
    size = (torch.arange(given.size.shape[1]) < torch.tensor(ends)[:, None]).float()[..., None]
    return replace(given, size=size)


def test_quest_takes_the_published_pages():
    """Of the last query, by the kernels' rule: the last page always, the best others."""
    golden, (query, key, _) = arrays("quest_random"), drawn()
    tokens, page, budget = golden["cfg"].tolist()
    query, key = query[:, :, :tokens], key[:, :, :tokens]
    scores = quest.bounds(query[:, :, -1], key[:, :, :-4], torch.ones(1, tokens - 4, 1), page)
    torch.testing.assert_close(scores, golden["page_scores"][..., :-1], rtol=0, atol=1e-4)
    pages = chosen(f"quest:budget={budget},page={page}", query, key, True)[0, :, -1]
    for head in range(4):
        assert torch.equal(pages[head].nonzero()[:, 0], golden["pages_kernel_rule"][head].sort().values.long())


def test_double_sparsity_takes_the_published_channels_and_tokens():
    golden, (query, key, _) = arrays("doublesparse_random"), drawn()
    measured = (query * key).abs().mean(dim=2)
    assert torch.equal(measured[0].argsort(dim=-1, descending=True), golden["sorted_channel"].long())
    found = chosen("double-sparsity:tokens=64,channels=16", query, key, True, measured)
    shifts = torch.arange(8, dtype=torch.uint8).flip(0)
    published = (golden["mask_rows_b16"][..., None] >> shifts & 1).flatten(-2).bool()
    assert torch.equal(found[:, :, golden["rows"].long()], published)


def test_tokenselect_takes_the_published_tokens():
    """Those of the published code, which reads the keys of wrong heads, from the keys that it reads; and of the right
    heads those that its rule gives, which rounds scores to bf16: one token is another there."""
    golden, (query, key, _) = arrays("tokenselect_random"), drawn()
    config = tokenselect.Config(top=96, init=16, local=64, block=64)
    middle, size = slice(config.init, 512 - config.local), torch.ones(1, 512, 1)
    ends = torch.cat([torch.arange(config.init), torch.arange(512 - config.local, 512)])

    def taken(keys: torch.Tensor) -> torch.Tensor:
        found = tokenselect.voted(query[:, :, -1], keys[:, :, middle], size[:, middle], config.top)[0]
        return torch.cat([ends, found + config.init]).sort().values

    assert torch.equal(taken(key[:, [0, 1, 0, 1]]), golden["idx_decode_norot"].long())
    right = taken(key[:, [0, 0, 1, 1]])
    assert torch.isin(right, golden["restated_standard_h_div_group"].long()).sum() == len(right) - 1
    # The graph's votes: 64 times the same query is a chunk with that mean.
    query = query[:, :, -1:].expand(-1, -1, 512, -1).contiguous()
    got = chosen("tokenselect:top=96,init=16,local=64,block=64", query, key[:, :2], True)[0, 0, -1]
    assert torch.equal(got.nonzero()[:, 0], right)


CAUSAL = [
    "minference:vertical=3,slash=2,sinks=3,near=20,block=32", "hisa:density=0.3,part=16,block=64",
    "quest:budget=60,page=8", "tokenselect:top=40,init=5,local=50,block=32", "double-sparsity:tokens=30,channels=8",
]  # fmt: skip


@pytest.mark.parametrize("ends", [(333, 333), (333, 200), (333, 40)])
@pytest.mark.parametrize("text", CAUSAL)
def test_causal_choices_with_padding_and_shared_heads(text, ends):
    given = padded(state(*clustered(), True), *ends)
    spread = given.keys.repeat_interleave(2, dim=1)
    agrees(text, replace(given, measured=(given.queries * spread).abs().mean(dim=2)))


@pytest.mark.parametrize("end", [333, 200])
@pytest.mark.parametrize("text", [*CAUSAL, "xattention:threshold=0.8,block=32", "block-topk:means=true,block=16"])
def test_a_choice_in_pieces_is_the_same_choice(text, end, monkeypatch):
    """Pieces of a few rows, the last one shorter; the lists of means, 21 of them, are two pieces anyway."""
    given = padded(state(*clustered(), True), 333, end)
    given = replace(given, measured=(given.queries * given.keys.repeat_interleave(2, dim=1)).abs().mean(dim=2))
    whole, _ = graph(text, given)
    monkeypatch.setattr(_pieces, "AT_ONCE", 4 * 333 * 50)
    pieces, _ = graph(text, given)
    real = (given.size[:, None] > 0).expand_as(whole["out"])
    torch.testing.assert_close(pieces["out"][real], whole["out"][real], rtol=0, atol=1e-5)
    agrees(text, given)


@pytest.mark.parametrize(
    "text", ["xattention:threshold=0.8,block=32", "block-topk:means=true,block=16", "hisa:density=0.3,part=16,block=64"]
)
def test_an_encoders_choice_in_pieces(text, monkeypatch):
    monkeypatch.setattr(_pieces, "AT_ONCE", 4 * 16 * 50)
    agrees(text, padded(state(*clustered(), False, 5), 333, 200))


def test_llsa_chooses_and_attends_as_its_formula_says():
    """The published kernels drop the coarse means at this length (out_rows_real); these are with them."""
    golden, (query, key, value) = arrays("llsa_l1_n512_random"), (each[:, :1] for each in drawn())
    given = state(query, key, False)
    lists = chosen("llsa:top=8", query, key, False)
    assert torch.equal(lists, torch.zeros_like(lists).scatter_(3, golden["block_idx"].long(), True))
    config = attention.parse("llsa:top=8").config
    keys, values, sizes = llsa.pooled(given, value, config)
    scores = query @ torch.cat([key, keys], dim=2).mT / 8 + torch.cat([torch.ones(1, 512), sizes], dim=1).log()
    out = scores.masked_fill(~seen("llsa:top=8", given), -torch.inf).softmax(dim=-1) @ torch.cat([value, values], dim=2)
    torch.testing.assert_close(out[:, :, golden["rows"].long()], golden["out_rows_intended"], rtol=0, atol=1e-5)


ENCODERS = [
    "llsa:top=3",
    "llsa:top=2,levels=2",
    "hisa:density=0.3,part=16,block=64",
    "svg2:queries=8,keys=8,most=0.4,block=32",
]


@pytest.mark.parametrize("ends", [(333, 333), (333, 200), (333, 40)])
@pytest.mark.parametrize("text", ENCODERS)
@pytest.mark.parametrize("prefix", [0, 5])
def test_encoders_choices_with_padding_and_shared_heads(text, ends, prefix):
    agrees(text, padded(state(*clustered(), False, prefix), *ends))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("end", [333, 200, 40])
def test_means_stand_for_what_is_no_padding(causal, left, end):
    """Behind it or in front of it; five of eleven blocks are listed."""
    query, key = clustered()
    given = padded(state(query - 2, key + 2, causal, 0 if causal else 5), 333, end)  # scores below 0
    agrees("block-topk:density=0.45,means=true,block=32", replace(given, size=given.size.flip(1)) if left else given)


def test_hisa_leaves_the_published_candidates():
    golden = arrays("hisa_random")
    side, count, _ = golden["cfg"].tolist()
    for row, scores, wanted in zip(golden["rows"], golden["block_scores_rows"], golden["block_mask_rows"], strict=True):
        visible = int(row) // side + 1
        kept = hisa.candidates(scores[:visible], visible - 1, count)
        assert torch.equal(kept.sort().values, wanted.nonzero()[:, 0])


def test_svg2_clusters_and_pairs_are_the_published_ones():
    golden, (query, key, _) = arrays("svg2_random"), drawn()
    for head in range(4):
        found = []
        for name, x in (("q", query[0, head]), ("k", key[0, head])):
            of, means, sizes = svg2.k_means(x, torch.ones(512), golden[f"{name}_init"][head], 10)
            assert torch.equal(sizes.long(), golden[f"{name}_sizes"][head].long())
            assert torch.equal(of, golden[f"{name}_labels"][head].long())
            torch.testing.assert_close(means, golden[f"{name}_centroids"][head].float(), rtol=0, atol=1e-5)
            found.append((means, sizes))
        (query_means, _), (key_means, sizes) = found
        _, kept = svg2.pairs(query_means, key_means, sizes, 0.125, 0.9, 0.1)
        assert torch.equal(kept, golden["dynamic_map"][0, head])
