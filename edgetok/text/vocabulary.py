"""A vocabulary whose tokens are bytes: that of a byte-level BPE, from tokenizer.json or a tiktoken file."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgetok.errors import InputError, MissingPackage

MOST_BYTES = 2**27  # of a file; those of published models have a few million


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens and their ids.

    Attributes:
        ids: of each token's bytes.
        merges: the rank of each pair of neighbours that BPE joins; None where a pair's rank is the id of what it makes.
        pieces: text -> the pieces that no token crosses; none are there where it is None.
        deletions: of PickyBPE: the rank at which a token is taken apart again, in one order with `merges`.
        supermerges: of BoundlessBPE: the rank at which two pieces of one token each are joined, in the same order.
        scaffolds: of Scaffold-BPE: tokens that only help to make others.
        expressions: the ids of several pieces that are one token; these are not in `ids`.
        longest: bytes of the longest token.
        tokens: the bytes of each id.
    """

    ids: Mapping[bytes, int]
    merges: Mapping[tuple[bytes, bytes], int] | None = None
    pieces: Callable[[str], list[bytes]] | None = None
    deletions: Mapping[bytes, int] = field(default_factory=dict)
    supermerges: Mapping[tuple[bytes, bytes], int] = field(default_factory=dict)
    scaffolds: Collection[bytes] = frozenset()
    expressions: Mapping[tuple[bytes, ...], int] = field(default_factory=dict)
    longest: int = field(init=False)
    tokens: Mapping[int, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", max(map(len, self.ids), default=0))
        tokens = {number: token for token, number in self.ids.items()}
        tokens |= {number: b"".join(words) for words, number in self.expressions.items()}
        object.__setattr__(self, "tokens", tokens)

    def rank(self, left: bytes, right: bytes) -> int | None:
        """When BPE joins two neighbours: the lowest first; None for never."""
        return self.ids.get(left + right) if self.merges is None else self.merges.get((left, right))

    def byte(self, value: int) -> int:
        """The id of a single byte.

        Raises:
            InputError: the vocabulary has none, so that there are texts that it cannot spell.
        """
        number = self.ids.get(bytes([value]))
        if number is None:
            raise InputError(f"the vocabulary has no token for the byte 0x{value:02x}: it cannot spell this text")
        return number

    def number(self, token: bytes) -> int:
        """The id of a token that its merges made.

        Raises:
            InputError: the vocabulary has none: its merges make what it does not list.
        """
        if len(token) == 1:
            return self.byte(token[0])
        if token not in self.ids:
            raise InputError(f"the vocabulary has no token {token!r}, which its merges make")
        return self.ids[token]


def from_tokenizer_json(file: Path) -> Vocabulary:
    """Read a byte-level BPE of Hugging Face's tokenizers.

    Raises:
        InputError: the file is damaged, or of another kind: WordPiece, Unigram, BPE over characters.
    """
    from tokenizers import Tokenizer

    raw = read(file)
    try:
        text = raw.decode()
        content, tokenizer = json.loads(text), Tokenizer.from_str(text)
        model = content["model"]
    except Exception as error:  # tokenizers raises nothing more precise
        raise InputError(f"{file.name} is no tokenizer.json: {error}") from error
    kind, alphabet, cut = model.get("type"), _alphabet(), tokenizer.pre_tokenizer
    others = any(character not in alphabet for token in model["vocab"] for character in token)
    if kind != "BPE" or others or "ByteLevel" not in str(cut):
        raise InputError(
            f"{file.name} holds a {kind or 'nameless'} vocabulary: other ways of cutting are for byte-level BPE, as in "
            "GPT-2, Llama 3 or Whisper"
        )

    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    merges = {(printed(left), printed(right)): rank for rank, (left, right) in enumerate(pairs)}

    def pieces(whole: str) -> list[bytes]:
        if tokenizer.normalizer is not None:
            whole = tokenizer.normalizer.normalize_str(whole)
        return [printed(piece) for piece, _ in cut.pre_tokenize_str(whole)]

    ids = {printed(token): number for token, number in model["vocab"].items()}
    added = [token for token in content.get("added_tokens") or () if not token["special"]]
    expressions = {tuple(pieces(token["content"])): token["id"] for token in added}
    return Vocabulary(ids, merges, pieces, expressions={words: ids for words, ids in expressions.items() if words[1:]})


def printed(token: str) -> bytes:
    """The bytes of a token in the printable characters of byte-level BPE.

    Raises:
        KeyError: a character that stands for no byte.
    """
    alphabet = _alphabet()
    return bytes(alphabet[character] for character in token)


def pieces_by(pattern: str) -> Callable[[str], list[bytes]]:
    """What cuts a text by a pattern of the package regex, whose syntax is that of such vocabularies.

    Raises:
        MissingPackage: regex is not installed.
        InputError: the pattern is none, or, when a text is cut, passes over a part of it.
    """
    try:
        import regex
    except ImportError:
        raise MissingPackage("edgetok[text]", "a vocabulary whose pieces are told by a pattern") from None
    try:
        find: Callable[[str], list[str]] = regex.compile(pattern).findall
    except regex.error as error:
        raise InputError(f"{pattern!r} is no pattern of pieces: {error}") from None

    def pieces(text: str) -> list[bytes]:
        found = find(text)
        if "".join(found) != text:
            raise InputError(f"the pattern {pattern!r} passes over a part of the text")
        return [piece.encode() for piece in found]

    return pieces


def from_tiktoken(file: Path, pieces: Callable[[str], list[bytes]] | None = None) -> Vocabulary:
    """Read a tiktoken file: a line for each token, its bytes in base64 and its rank.

    Whisper's multilingual one has a token of no bytes, written as "=", which no text contains.

    Raises:
        InputError: it is none.
    """
    ids: dict[bytes, int] = {}
    ranks: set[int] = set()
    for number, line in enumerate(read(file).splitlines(), start=1):
        parts = line.split()
        try:
            token = b"" if parts[0] == b"=" else base64.b64decode(parts[0], validate=True)
            rank = int(parts[1])
        except (binascii.Error, ValueError, IndexError) as error:
            raise InputError(f"{file.name}, line {number}: not a token in base64 and its rank") from error
        if token in ids or len(parts) != 2:
            raise InputError(f"{file.name}, line {number}: a token that was there before, or more than its rank")
        if rank in ranks or not 0 <= rank < 2**31:
            raise InputError(f"{file.name}, line {number}: a rank from 0 on is accepted once, not {rank}")
        ids[token] = rank
        ranks.add(rank)
    return Vocabulary(ids, None, pieces)


def read(file: Path, most: int | None = None) -> bytes:
    """A file of at most so many bytes, MOST_BYTES where nothing is said.

    Raises:
        InputError: it is missing, or larger.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing: there is no such file")
    if (size := file.stat().st_size) > (most := most or MOST_BYTES):
        raise InputError(f"{file.name} has {size} bytes: at most {most} are read")
    return file.read_bytes()


@cache
def _alphabet() -> dict[str, int]:
    """The printable characters that byte-level BPE writes bytes as, from GPT-2's encoder (MIT), and the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return {chr(value): value for value in plain} | {chr(256 + i): value for i, value in enumerate(others)}
