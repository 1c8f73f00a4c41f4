"""merge_rank: byte-pair encoding's own way: the pair with the lowest rank is joined first, of equal ones the left.

Neural Machine Translation of Rare Words with Subword Units, https://arxiv.org/abs/1508.07909, section 3.2; on bytes as
in GPT-2.
"""

from __future__ import annotations

from edgetok.text.merging import merge
from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def tokens(piece: bytes, vocabulary: Vocabulary) -> list[bytes]:
    """bytes -> the tokens' bytes"""
    if vocabulary.merges is None and piece in vocabulary.ids:
        return [piece]

    def rule(left: bytes, right: bytes) -> tuple[int, bytes] | None:
        rank = vocabulary.rank(left, right)
        return None if rank is None else (rank, left + right)

    return merge([piece[i : i + 1] for i in range(len(piece))], rule)


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    return [vocabulary.number(token) for token in tokens(piece, vocabulary)]


PAPER = "Byte-pair encoding, https://arxiv.org/abs/1508.07909, section 3.2"
SEGMENTER = Segmenter("the pair with the lowest rank first", PAPER, segment)
