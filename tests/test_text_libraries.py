"""SentencePiece and tiktoken files: what the libraries themselves say, through bundles, and hostile ones."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetok import cli
from edgetok.bundle import open_bundle
from edgetok.errors import InputError, MissingPackage
from edgetok.exporters.sources import capture
from edgetok.inputs import load_inputs
from edgetok.text import library
from edgetok.text.segmenter import detokenize, tokenize
from tests.conftest import packaged

sentencepiece = pytest.importorskip("sentencepiece")
tiktoken = pytest.importorskip("tiktoken")

Pair = tuple[library.TextTokenizer, Callable[[str], list[int]]]  # ours, and the library's own
ODD = "👩‍👩‍👧‍👦 e\u0301 ﷽ ☃️ 日本語 مرحبا नमस्ते \u200b\ufeff\x00 <s> </s> <|endoftext|>   \t\r\n"
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""  # as GPT-2 was published


def corpus() -> str:
    """More than a megabyte: emoji, joined and with marks, and their names in 13 languages."""
    folder = packaged("emoji", "unicode_codes")
    return "".join(file.read_text(encoding="utf-8")[:80_000] for file in sorted(folder.glob("*.json"))) + ODD


def mistral() -> Path:
    return packaged("mistral_common", "data/tokenizer.model.v1")


def whisper(name: str) -> Path:
    return packaged("whisper", f"assets/{name}.tiktoken")


def saved(folder: Path, vocabulary: Path, name: str, **said: object) -> Path:
    """A vocabulary, and the settings beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(vocabulary, folder / name)
    if said:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder / name


def reference(file: Path) -> tiktoken.Encoding:
    """tiktoken with its own reader, and the pattern as it was published first."""
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, file.read_bytes().splitlines())}
    return tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def test_sentencepiece_on_a_corpus(tmp_path: Path) -> None:
    file = saved(tmp_path, mistral(), "tokenizer.model", tokenizer_class="LlamaTokenizer")
    text, ours = corpus(), library.load(file)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(mistral()))
    assert len(text.encode()) > 1_000_000 and ours.size == 32000
    ids = ours.encode(text)
    assert ids == theirs.encode(text) and ours.decode(ids) == text


def test_tiktoken_on_a_corpus(tmp_path: Path) -> None:
    file = saved(tmp_path, whisper("gpt2"), "gpt2.tiktoken")
    text, ours, theirs = corpus(), library.load(file), reference(whisper("gpt2"))
    ids = ours.encode(text)
    assert ids == theirs.encode_ordinary(text) and ours.decode(ids) == text
    vocabulary = ours.vocabulary()
    text = text[-100_000:]
    assert tokenize(text, vocabulary, "merge-rank") == theirs.encode_ordinary(text)
    assert detokenize(tokenize(text, vocabulary, "greedy"), vocabulary).decode() == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_as_the_libraries_have_it(text: str, fuzzed: dict[str, Pair]) -> None:
    for ours, theirs in fuzzed.values():
        assert ours.encode(text) == theirs(text)
    assert fuzzed["tiktoken"][0].decode(fuzzed["tiktoken"][0].encode(text)) == text


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("fuzzed")
    llama = saved(folder / "l", mistral(), "tokenizer.model", tokenizer_class="LlamaTokenizer")
    return {
        "sentencepiece": (
            library.load(llama),
            sentencepiece.SentencePieceProcessor(model_file=str(mistral())).encode,
        ),
        "tiktoken": (
            library.load(saved(folder / "t", whisper("gpt2"), "gpt2.tiktoken")),
            reference(whisper("gpt2")).encode_ordinary,
        ),
    }


@pytest.mark.parametrize(("begins", "ends"), [(True, False), (True, True), (False, False)])
def test_what_stands_around_a_text(tmp_path: Path, begins: bool, ends: bool) -> None:
    """As transformers reads the same folder; it cuts runs of spaces otherwise than sentencepiece itself."""
    from transformers import AutoTokenizer

    said = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": begins, "add_eos_token": ends}
    file = saved(tmp_path, mistral(), "tokenizer.model", **said)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs, texts = AutoTokenizer.from_pretrained(tmp_path), ["the river runs 👩‍👩", "a", "naïve e\u0301"]
    rows = library.load(file).rows(texts, 64)
    assert [row.ids for row in rows] == theirs(texts)["input_ids"]
    shortened = library.load(file).rows(texts, 3)
    assert shortened[0].ids == [1] * begins + rows[0].ids[begins : 3 - ends] + [2] * ends


def test_a_vocabulary_is_read_once_until_it_changes(tmp_path: Path) -> None:
    said = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    file = saved(tmp_path, mistral(), "tokenizer.model", **said, add_eos_token=False)
    first = library.kept(file)
    assert library.kept(file) is first
    saved(tmp_path, mistral(), "tokenizer.model", **said, add_eos_token=True)
    assert library.kept(file).rows(["a"], 9)[0].ids == [*first.rows(["a"], 9)[0].ids, 2]
    file.unlink()
    with pytest.raises(InputError, match=r"reads text with tokenizer\.model, which is missing"):
        library.kept(file)


def test_a_tiktoken_file_with_settings(tmp_path: Path) -> None:
    """Whisper's second vocabulary, a pattern of its own, and special tokens around a text."""
    file = saved(
        tmp_path, whisper("multilingual"), "tokenizer.model", pat_str=GPT2, add_bos_token=True, add_eos_token=True,
        bos_token={"content": "<|s|>"}, eos_token="<|e|>",
        added_tokens_decoder={"50257": {"content": "<|s|>", "special": True}, "50300": "<|e|>"},
    )  # fmt: skip
    ours, theirs = library.load(file), reference(whisper("multilingual"))
    assert ours.rows(["a bridge", ""], 8)[0].ids == [50257, *theirs.encode_ordinary("a bridge"), 50300]
    assert ours.rows([""], 8)[0].ids == [50257, 50300] and ours.size == 50301
    assert ours.decode([50257, 64, 50300]) == "<|s|>a<|e|>"
    with pytest.raises(InputError, match="tokenizer.model has no token of that id: 'Invalid token for decoding: 50299"):
        ours.decode([50299])


BYTES = [f"{base64.b64encode(bytes([value])).decode()} {value}" for value in range(256)]


@pytest.mark.parametrize(
    ("content", "said", "told"),
    [
        (BYTES, {}, r'v.tiktoken needs the pattern of its pieces: write it as "pat_str" into tokenizer_config.json'),
        (BYTES[1:], {"pat_str": "."}, "no token for the byte 0x00: there are texts it cannot spell"),
        ([*BYTES, "YWE= 3"], {"pat_str": "."}, "line 257: a rank from 0 on is accepted once, not 3"),
        ([*BYTES, "YWE= -3"], {"pat_str": "."}, "line 257: a rank from 0 on is accepted once, not -3"),
        (BYTES, {"pat_str": "("}, r"cannot be read with the pattern '\(': "),
        (BYTES, {"pat_str": "a"}, "the pattern 'a' passes over a part of the text"),
        (BYTES, {"pat_str": 3}, "tokenizer_config.json: pat_str: Input should be a valid string"),
        (BYTES, {"pat_str": ".", "added_tokens_decoder": {"7": "x"}}, "both have a token of the id 7"),
        (BYTES, {"pat_str": ".", "add_bos_token": True, "bos_token": "<s>"}, "asks for the token '<s>' around a text"),
    ],
)
def test_bad_tiktoken_folders(tmp_path: Path, content: list[str], said: dict[str, object], told: str) -> None:
    (tmp_path / "vocabulary").write_text("\n".join(content))
    with pytest.raises(InputError, match=told):
        library.load(saved(tmp_path, tmp_path / "vocabulary", "v.tiktoken", **said)).encode("text")


def test_bad_sentencepiece_folders(tmp_path: Path) -> None:
    llama = {"tokenizer_class": "LlamaTokenizer"}
    whole = mistral().read_bytes()
    for content in (b"", b"\n", whole[:1000], whole[:-1], b"\x00" * 99):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InputError, match=r"^tokenizer.model is no SentencePiece model: [^\n]+$"):
            library.load(saved(tmp_path, tmp_path / "bad", "tokenizer.model", **llama))
    for said, told in (
        ({}, "what stands around a text of spm.model is not known: tokenizer_config.json names no tokenizer_class"),
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "names XLMRobertaTokenizer, and LlamaTokenizer, GemmaTokenizer"),
        (llama | {"bos_token": "<bos>"}, "spm.model has no token of the beginning <bos>, and tokenizer_config.json"),
    ):
        file = saved(tmp_path / str(len(told)), mistral(), "spm.model", **said)
        with pytest.raises(InputError, match=told):
            library.load(file)
    file = saved(tmp_path / "whole", mistral(), "spm.model", add_bos_token=False, add_eos_token=False)
    with pytest.raises(InputError, match="holds a SentencePiece vocabulary: other ways of cutting are for byte-level"):
        library.load(file).vocabulary()
    (tmp_path / "whole" / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer_config.json: the file: Invalid JSON"):
        library.load(file)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_are_refused_or_read(tmp_path: Path, seed: int) -> None:
    """Bytes changed anywhere: never another error, and what is read cuts a text."""
    drawn = random.Random(seed)
    golden = Path(__file__).parent / "golden" / "tokenizers" / "text_boundlessbpe.json"
    whole = [mistral().read_bytes(), "\n".join(BYTES).encode(), json.loads(golden.read_text())["model"].encode()]
    for content in map(bytearray, whole):
        for _ in range(drawn.choice([1, 3, 20])):
            content[drawn.choice([drawn.randrange(len(content)), drawn.randrange(200)])] = drawn.randrange(256)
        (tmp_path / "bad").write_bytes(content)
        try:
            read = library.load(saved(tmp_path, tmp_path / "bad", "v.model", pat_str=".", add_bos_token=False,
                                      add_eos_token=False))  # fmt: skip
            ids = read.encode("Hello wörld, 👩")
        except InputError:
            continue
        assert max(ids, default=0) < read.size


def test_libraries_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, file in (("sentencepiece", mistral()), ("tiktoken", whisper("gpt2"))):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingPackage, match=r"reading v.model needs 'edgetok\[text\]': pip install"):
            library.load(saved(tmp_path, file, "v.model", add_bos_token=False, add_eos_token=False))


def test_a_vocabulary_that_cannot_be_read_is_told_first(tmp_path: Path) -> None:
    saved(tmp_path, mistral(), "sentencepiece.bpe.model", tokenizer_class="XLMRobertaTokenizer")
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(InputError, match="names XLMRobertaTokenizer, and LlamaTokenizer, GemmaTokenizer, T5Tokenizer"):
        capture(str(tmp_path))


def test_which_file_is_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.choose(["a.txt", "tokenizer.json", "b.model"]) == "tokenizer.json"
    assert library.choose(["spiece.model", "x.json"]) == "spiece.model" and library.choose([".model", "x"]) is None
    with pytest.raises(InputError, match="a.model, b.tiktoken are all vocabularies: keep one"):
        library.choose(["b.tiktoken", "a.model"])
    with pytest.raises(InputError, match=r"v.bin is no vocabulary: tokenizer.json, a SentencePiece .model and"):
        library.load(saved(tmp_path, Path(__file__), "v.bin"))
    (tmp_path / "text").write_text("{}")
    with pytest.raises(InputError, match="v.model is no vocabulary"):
        library.load(saved(tmp_path, tmp_path / "text", "v.model"))
    monkeypatch.setattr("edgetok.text.vocabulary.MOST_BYTES", 9)
    for name in ("v.model", "v.tiktoken", "v.json"):
        with pytest.raises(InputError, match=rf"{name} has \d+ bytes: at most 9 are read"):
            library.load(saved(tmp_path, mistral(), name, pat_str="."))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """With the operators of onnxruntime-extensions."""
    from onnxruntime_extensions import get_library_path

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def llama(folder: Path) -> Path:
    """A small Llama of seeded weights beside Mistral's real vocabulary."""
    import transformers

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaModel(transformers.LlamaConfig(vocab_size=32000, **size)).save_pretrained(folder)
    saved(folder, mistral(), "tokenizer.model", tokenizer_class="LlamaTokenizer", add_bos_token=True)
    return folder


def gpt2(folder: Path) -> Path:
    """A small GPT-2 of seeded weights beside GPT-2's real vocabulary."""
    import transformers

    transformers.GPT2Model(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    saved(folder, whisper("gpt2"), "gpt2.tiktoken")
    return folder


@pytest.mark.parametrize(
    ("model", "carried", "ids"),
    [
        (llama, {"tokenizer.model", "tokenizer_config.json"}, [1, 741, 2245]),
        pytest.param(gpt2, {"gpt2.tiktoken"}, [11246, 2420], marks=pytest.mark.more),
    ],
)
def test_a_folder_becomes_a_bundle_that_reads_texts(
    model: Callable[[Path], Path], carried: set[str], ids: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, notes, back = tmp_path / "bundle", tmp_path / "notes.txt", tmp_path / "back.txt"

    def edgetok(*words: object) -> dict[str, Any]:
        assert cli.main([*map(str, words), "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    edgetok("export", model(tmp_path / "source"), "--length", 8, "-o", bundle)
    assert carried <= {file.name for file in bundle.iterdir()}
    edgetok("run", bundle, "--input", "some text")
    given = {spec.name: spec for spec in open_bundle(bundle).manifest.inputs}
    fed = load_inputs(["some text"], list(given.values()), bundle)
    assert fed["input_ids"].tolist() == [ids + [0] * (8 - len(ids))]
    assert fed["attention_mask"].sum() == len(ids)
    notes.write_text(ODD, encoding="utf-8", newline="")
    edgetok("tokenize", bundle, notes, "-o", tmp_path / "t.npz")
    edgetok("detokenize", bundle, tmp_path / "t.npz", "-o", back)
    assert back.read_bytes() == notes.read_bytes()
    if carried == {"gpt2.tiktoken"} or not find_spec("onnxruntime_extensions"):
        return
    graph = tmp_path / "text.onnx"
    assert edgetok("text-graph", bundle, "-o", graph, "--check", notes)["texts"] == 14
    (row,) = session(onnx.load(graph)).run(["input_ids"], {"text": np.array(["some text"], object)})
    np.testing.assert_array_equal(row, fed["input_ids"])
    assert cli.main(["text-graph", str(bundle), "-o", str(graph)]) == 2
    assert "text.onnx exists: give another name" in capsys.readouterr().err.replace("\n", "")
