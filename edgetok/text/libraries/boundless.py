"""A .model of BoundlessBPE, whose published code is too slow to run texts with: it is cut by edgetok's `superwords`.

Boundless Byte Pair Encoding, https://arxiv.org/abs/2504.00178; files by kensho-technologies/boundlessbpe, in their form
"word v1": the pattern of the words in JSON; then counted lists of tokens, special tokens, merges, deletions, joins of
words and deletions of these, with bytes written as printable characters as GPT-2 does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgetok.errors import InputError
from edgetok.text.library import Library, Row, TextTokenizer
from edgetok.text.segmenter import detokenize, tokenize
from edgetok.text.vocabulary import Vocabulary, pieces_by, printed, read

MARK = b"word v1\n"


class Boundless(TextTokenizer):
    """A .model in the form "word v1"; special tokens that are spelt out in a text are text."""

    def __init__(self, file: Path) -> None:
        try:
            self.known = _parsed(read(file).decode())
        except (ValueError, KeyError, StopIteration, RuntimeError) as error:
            raise InputError(f"{file.name} is no model of BoundlessBPE: {' '.join(repr(error).split())}") from error
        self.size = max(self.known.tokens) + 1

    def encode(self, text: str) -> list[int]:
        """Ids."""
        return tokenize(text, self.known, "superwords")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return detokenize(ids, self.known).decode(errors="replace")

    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """Nothing is around a text."""
        rows = [self.encode(text)[:length] for text in texts]
        return [Row(row, [0] * len(row)) for row in rows]

    def vocabulary(self) -> Vocabulary:
        """Itself."""
        return self.known


def _parsed(content: str) -> Vocabulary:
    lines = iter(content.split("\n"))
    next(lines)
    pieces = pieces_by(json.loads(next(lines)))
    ids = {token: number for number, (token,) in _listed(lines, 1)}
    for _ in range(int(next(lines))):  # special tokens
        next(lines)
    merges = {(left, right): rule for rule, (left, right) in _listed(lines, 2)}
    deletions = {token: rule for rule, (token,) in _listed(lines, 1)}
    supermerges = {(left, right): rule for rule, (left, right) in _listed(lines, 2)}
    if list(_listed(lines, 1)):
        raise ValueError("it deletes joined words, which the published code does not run either")
    return Vocabulary(ids, merges, pieces, deletions, supermerges)


def _listed(lines: Iterator[str], width: int) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """A count, and so many lines of a number and tokens."""
    for _ in range(int(next(lines))):
        number, *tokens = next(lines).split(" ")
        if len(tokens) != width:
            raise ValueError(f"{len(tokens)} tokens in a line of the list where {width} are expected")
        yield int(number), tuple(map(printed, tokens))


LIBRARY = Library("a .model of BoundlessBPE", lambda name, head: head.startswith(MARK), Boundless)
