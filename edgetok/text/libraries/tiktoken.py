"""A .tiktoken file, by https://github.com/openai/tiktoken.

The file holds tokens and ranks only. The pattern of the pieces is "pat_str" of tokenizer_config.json, or that of the
encoding which the file is named after; the patterns are those that tiktoken publishes, in its openai_public.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetok.errors import InputError, MissingPackage
from edgetok.text import settings
from edgetok.text.library import SETTINGS, Library, Row, TextTokenizer
from edgetok.text.vocabulary import Vocabulary, from_tiktoken, pieces_by

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
# By the file's name: the pattern, and the id of <|endoftext|>.
_KNOWN = {
    "gpt2": (_GPT2, 50256),
    "r50k_base": (_GPT2, 50256),
    "p50k_base": (_GPT2, 50256),
    "cl100k_base": (_CL100K, 100257),
    "o200k_base": (_O200K, 199999),
}


class Tiktoken(TextTokenizer):
    """A .tiktoken file; special tokens that are spelt out in a text are text."""

    def __init__(self, file: Path) -> None:
        try:
            import tiktoken
        except ImportError:
            raise MissingPackage("edgetok[text]", f"reading {file.name}") from None
        self.file = file
        said = settings.beside(file)
        self.pattern, special = _pattern(file, said)
        ranks = dict(from_tiktoken(file).ids)
        _check(file, ranks, special)
        with _panics(f"{file.name} cannot be read with the pattern {self.pattern!r}"):
            self.encoding: Any = tiktoken.Encoding(
                file.stem, pat_str=self.pattern, mergeable_ranks=ranks, special_tokens=special
            )
        self.size = self.encoding.n_vocab
        self.before = [_special(said.bos_token, special)] if said.add_bos_token else []
        self.behind = [_special(said.eos_token, special)] if said.add_eos_token else []

    def encode(self, text: str) -> list[int]:
        """Ids."""
        with _panics(f"{self.file.name} cannot encode the text"):
            ids: list[int] = self.encoding.encode_ordinary(text)
        if len(self.encoding.decode_bytes(ids)) != len(text.encode(errors="replace")):
            raise InputError(f"{self.file.name}: the pattern {self.pattern!r} passes over a part of the text")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        try:
            text: str = self.encoding.decode(list(ids))
        except KeyError as error:
            raise InputError(f"{self.file.name} has no token of that id: {error}") from None
        return text

    def rows(self, texts: Sequence[str], length: int) -> list[Row]:
        """What is around a text stays where the text is cut."""
        free = max(0, length - len(self.before) - len(self.behind))
        rows = [[*self.before, *self.encode(text)[:free], *self.behind][:length] for text in texts]
        return [Row(row, [0] * len(row)) for row in rows]

    def vocabulary(self) -> Vocabulary:
        """Its pieces are cut by the pattern, as read by the package regex."""
        return from_tiktoken(self.file, pieces_by(self.pattern))


def _pattern(file: Path, said: settings.Settings) -> tuple[str, dict[str, int]]:
    """The pattern, and the special tokens."""
    special = {token: number for number, token in said.added_tokens_decoder.items()}
    if said.pat_str is not None:
        return said.pat_str, special
    known = _KNOWN.get(file.stem)
    if known is None:
        raise InputError(
            f'{file.name} needs the pattern of its pieces: write it as "pat_str" into {SETTINGS} beside it, or name '
            f"the file after the encoding that it is: {', '.join(_KNOWN)}"
        )
    return known[0], special or {"<|endoftext|>": known[1]}


def _check(file: Path, ranks: dict[bytes, int], special: dict[str, int]) -> None:
    """What tiktoken would only say when it reads a text, by a panic."""
    for value in range(256):
        if bytes([value]) not in ranks:
            raise InputError(f"{file.name} has no token for the byte 0x{value:02x}: there are texts it cannot spell")
    both = set(ranks.values()) & set(special.values())
    if both:
        raise InputError(f"{file.name} and {SETTINGS} both have a token of the id {min(both)}")


def _special(token: str | None, special: dict[str, int]) -> int:
    if token is None or token not in special:
        raise InputError(f"{SETTINGS} asks for the token {token!r} around a text: added_tokens_decoder has no such")
    return special[token]


@contextmanager
def _panics(what: str) -> Iterator[None]:
    """A pattern that does not compile is a ValueError; one that matches nothing is a panic, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, ValueError) or type(error).__name__ == "PanicException":
            raise InputError(f"{what}: {' '.join(str(error).split())}") from None
        raise


_LINE = re.compile(rb"[A-Za-z0-9+/=]+ \d+\s")  # Llama 3 calls such a file tokenizer.model


def _reads(name: str, head: bytes) -> bool:
    return name.endswith(".tiktoken") or (name.endswith(".model") and _LINE.match(head) is not None)


LIBRARY = Library("a .tiktoken file, by tiktoken", _reads, Tiktoken)
