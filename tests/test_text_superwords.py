"""Superwords: the ids of BoundlessBPE's own code, with a vocabulary that its own trainer made."""

from __future__ import annotations

import json
import pydoc_data.topics
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetok.errors import InputError
from edgetok.text import library
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary
from tests.conftest import packaged

pytest.importorskip("regex")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizers" / "text_boundlessbpe.json").read_text())


@cache
def golden(folder: Path) -> library.TextTokenizer:
    (folder / "golden.model").write_text(GOLDEN["model"], encoding="utf-8")
    return library.load(folder / "golden.model")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> library.TextTokenizer:
    return golden(tmp_path_factory.mktemp("superwords"))


def by_rules(text: str, vocabulary: Vocabulary) -> list[int]:
    """The paper's procedure as it is told: for each rule in its order, look through the whole text."""
    words = [[bytes([byte]) for byte in piece] for piece in vocabulary.pieces(text)]
    rules = sorted(
        [(rank, "merge", pair) for pair, rank in vocabulary.merges.items()]
        + [(rank, "delete", (token,)) for token, rank in vocabulary.deletions.items()]
        + [(rank, "join", pair) for pair, rank in vocabulary.supermerges.items()]
    )
    for _, kind, what in rules:
        place = 0
        while kind == "join" and place + 1 < len(words):
            if words[place] + words[place + 1] == list(what):
                words[place : place + 2] = [[what[0] + what[1]]]
            place += 1
        for word in words if kind != "join" else []:
            place = 0
            while place < len(word):
                if kind == "delete" and word[place] == what[0]:
                    word[place : place + 1] = [bytes([byte]) for byte in what[0]]
                elif kind == "merge" and word[place : place + 2] == list(what):
                    word[place : place + 2] = [what[0] + what[1]]
                place += 1
    return [vocabulary.ids[token] for word in words for token in word]


def test_the_published_codes_ids(model: library.TextTokenizer) -> None:
    assert [model.encode(text) for text in GOLDEN["strings"]] == GOLDEN["ids"]
    joined = {left + right for left, right in model.vocabulary().supermerges}
    used = {model.vocabulary().tokens[number] for ids in GOLDEN["ids"] for number in ids}
    assert len(joined & used) > 20 and len(model.vocabulary().deletions) > 20


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(sorted(GOLDEN["strings"][-1].split(" "))), max_size=30), odd=st.text(max_size=9))
def test_any_text_as_the_rules_have_it(words: list[str], odd: str, model: library.TextTokenizer) -> None:
    text = " ".join([*words, odd, *words])
    ids = model.encode(text)
    assert ids == by_rules(text, model.vocabulary()) and model.decode(ids) == text


@pytest.mark.more
def test_a_corpus_as_the_rules_have_it(model: library.TextTokenizer) -> None:
    """A page of each language and of documentation; the published code takes 100 s a megabyte."""
    files = sorted(packaged("emoji", "unicode_codes").glob("*.json"))
    pages = [*(file.read_text(encoding="utf-8") for file in files), *pydoc_data.topics.topics.values()]
    text = "".join(page[:700] for page in pages)
    assert len(text) > 50_000
    ids = model.encode(text)
    assert ids == by_rules(text, model.vocabulary()) and model.decode(ids) == text


@pytest.mark.parametrize(
    ("merges", "deletions", "joins", "text", "wanted"),
    [
        ({(b"a", b"b"): 0}, {}, {(b"ab", b"c"): 2}, "ab|c", [b"abc"]),
        ({(b"a", b"b"): 0}, {b"ab": 1}, {(b"ab", b"c"): 2}, "ab|c", [b"a", b"b", b"c"]),  # one token no more
        ({(b"a", b"b"): 3}, {}, {(b"ab", b"c"): 2}, "ab|c", [b"ab", b"c"]),  # not one token yet
        ({}, {}, {(b"a", b"b"): 5, (b"ab", b"c"): 3}, "a|b|c", [b"ab", b"c"]),  # the order is gone through once
        ({}, {}, {(b"a", b"b"): 3, (b"ab", b"c"): 5}, "a|b|c", [b"abc"]),
        ({}, {b"ab": 4}, {(b"a", b"b"): 3, (b"ab", b"c"): 5}, "a|b|c", [b"a", b"b", b"c"]),
        ({}, {}, {(b"a", b"a"): 0}, "a|a|a", [b"aa", b"a"]),
    ],
)
def test_the_order_of_rules(
    merges: dict[tuple[bytes, bytes], int],
    deletions: dict[bytes, int],
    joins: dict[tuple[bytes, bytes], int],
    text: str,
    wanted: list[bytes],
) -> None:
    tokens = [b"a", b"b", b"c", b"aa", b"ab", b"abc"]
    ids = {token: number for number, token in enumerate(tokens)}
    vocabulary = Vocabulary(ids, merges, lambda text: text.encode().split(b"|"), deletions, joins)
    assert tokenize(text, vocabulary, "superwords") == [ids[token] for token in wanted]
    assert by_rules(text, vocabulary) == [ids[token] for token in wanted]


@pytest.mark.parametrize("seed", range(40))
def test_rules_that_undo_each_other(seed: int) -> None:
    """Random rules over two letters: tokens are made, taken apart, made again, joined and taken apart."""
    import random

    drawn = random.Random(seed)
    tokens, rules = [b"a", b"b", b" "], {"merge": {}, "delete": {}, "join": {}}
    for rank in range(25):
        kind = drawn.choice(["merge", "merge", "delete", "join"])
        pair = drawn.choice(tokens), drawn.choice(tokens)
        if kind == "delete":
            rules[kind][drawn.choice(tokens[3:] or [b"ab"])] = rank
        else:
            rules[kind][pair] = rank
            tokens.append(pair[0] + pair[1])
    vocabulary = Vocabulary(
        {token: number for number, token in enumerate(dict.fromkeys(tokens))},
        rules["merge"],
        lambda text: [piece.encode() for piece in text.replace(" ", "\n ").split("\n") if piece],
        rules["delete"],
        rules["join"] or {(b"a", b"b"): 99},
    )
    vocabulary.ids.setdefault(b"ab", len(vocabulary.ids))
    text = "".join(drawn.choice("aab ") for _ in range(300))
    assert tokenize(text, vocabulary, "superwords") == by_rules(text, vocabulary)


def test_bytes_that_are_no_text_come_back(model: library.TextTokenizer) -> None:
    data = bytes(range(256)) * 3
    assert detokenize(tokenize(data, model.vocabulary(), "superwords"), model.vocabulary()) == data


def test_bad_models(tmp_path: Path) -> None:
    lines = GOLDEN["model"].split("\n")
    for content, told in (
        ("\n".join(lines[:50]), "bad.model is no model of BoundlessBPE: RuntimeError"),
        ("\n".join([lines[0], '"("', *lines[2:]]), r"'\(' is no pattern of pieces: missing \)"),
        ("\n".join([*lines[:3], "0 a b", *lines[4:]]), "2 tokens in a line of the list where 1 are expected"),
        ("\n".join([*lines[:3], "0 \u4e00", *lines[4:]]), "is no model of BoundlessBPE: KeyError"),
    ):
        (tmp_path / "bad.model").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=told):
            library.load(tmp_path / "bad.model")
    plain = Vocabulary({b"a": 0}, pieces=lambda text: [text.encode()])
    with pytest.raises(InputError, match="superwords are for vocabularies that join words"):
        tokenize(pydoc_data.topics.topics["types"], plain, "superwords")
