"""multi_word: expressions of several words are one token each; what is between them is cut by merge rank.

Multi-Word Tokenization for Sequence Compression, https://arxiv.org/abs/2402.09949, section 3; published code:
LeonidasY/fast-vocabulary-transfer. Expressions of more words come first in the whole text, those of equally many from
the left. What differs: words are the vocabulary's own pieces and stay bytes, where that code writes an expression with
underscores and gives other spaces back.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgetok.errors import InputError
from edgetok.text.segmenter import Segmenter
from edgetok.text.segmenters.merge_rank import segment
from edgetok.text.vocabulary import Vocabulary


def document(pieces: Sequence[bytes], vocabulary: Vocabulary) -> list[int]:
    """Words -> ids."""
    if not vocabulary.expressions:
        raise InputError(
            "multi-word is for vocabularies with expressions of several words, and this one has none: add them to "
            "tokenizer.json with add_tokens of transformers"
        )
    parts: list[bytes | int] = list(pieces)  # an int is an expression's id
    ids: dict[tuple[bytes | int, ...], int] = dict(vocabulary.expressions.items())
    for width in sorted({len(words) for words in ids}, reverse=True):
        found, place = list[bytes | int](), 0
        while place < len(parts):
            number = ids.get(tuple(parts[place : place + width]))
            found.append(parts[place] if number is None else number)
            place += 1 if number is None else width
        parts = found
    known = {part: segment(part, vocabulary) for part in set(parts) if isinstance(part, bytes)}
    return [number for part in parts for number in ([part] if isinstance(part, int) else known[part])]


PAPER = "MWT, https://arxiv.org/abs/2402.09949, section 3"
SEGMENTER = Segmenter("expressions of several words as one token", PAPER, segment, document)
