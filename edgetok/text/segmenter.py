"""What a segmenter is: it cuts bytes into tokens of a vocabulary. One is a file in edgetok/text/segmenters/."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgetok import discovery
from edgetok.errors import InputError
from edgetok.text.vocabulary import Vocabulary

PACKAGE = "edgetok.text.segmenters"


@dataclass(frozen=True)
class Segmenter:
    """One way of cutting.

    Attributes:
        summary: one line.
        paper: title, link, section.
        segment: (bytes, vocabulary) -> ids; of no bytes none.
        document: (pieces, vocabulary) -> ids, in place of `segment` for each piece, where tokens join pieces again.
        pieces: text -> pieces, in place of the vocabulary's own.
    """

    summary: str
    paper: str
    segment: Callable[[bytes, Vocabulary], list[int]]
    document: Callable[[Sequence[bytes], Vocabulary], list[int]] | None = None
    pieces: Callable[[str], list[bytes]] | None = None


def names() -> list[str]:
    """The segmenters' names; nothing is imported."""
    return discovery.names(PACKAGE)


def load(name: str) -> Segmenter:
    """The segmenter of a name.

    Raises:
        UnknownName: there is none.
    """
    return discovery.load(PACKAGE, "segmenter", name, Segmenter)


def tokenize(text: str | bytes, vocabulary: Vocabulary, mode: str, *, whole: bool = False) -> list[int]:
    """Cut a text.

    Args:
        text: bytes, which need not be UTF-8, are cut as a whole.
        vocabulary: its tokens.
        mode: the name of a segmenter.
        whole: let tokens cross the vocabulary's own pieces (words).

    Returns:
        Ids; `detokenize` gives the text's bytes back, unless the vocabulary normalises it.
    """
    segmenter = load(mode)
    cut = segmenter.pieces or vocabulary.pieces
    if isinstance(text, bytes) or whole or cut is None:
        return segmenter.segment(text.encode() if isinstance(text, str) else text, vocabulary)
    if segmenter.document is not None:
        return segmenter.document(cut(text), vocabulary)
    known: dict[bytes, list[int]] = {}
    ids: list[int] = []
    for piece in cut(text):
        if piece not in known:
            known[piece] = segmenter.segment(piece, vocabulary)
        ids += known[piece]
    return ids


def detokenize(ids: Iterable[int], vocabulary: Vocabulary) -> bytes:
    """The bytes of ids, one after the other.

    Raises:
        InputError: an id that the vocabulary does not have.
    """
    try:
        return b"".join(vocabulary.tokens[number] for number in ids)
    except KeyError as error:
        raise InputError(f"the vocabulary has no id {error.args[0]}: were they made by another?") from None
