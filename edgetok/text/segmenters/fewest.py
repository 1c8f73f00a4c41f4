"""fewest: as few tokens as there can be; of equally few, the ones whose last tokens are the longest.

Tokenization Is More Than Compression, https://arxiv.org/abs/2402.18376, section 3 (PathPiece); published code:
kensho-technologies/pathpiece (Open RAIL-S). What differs: no bytes give no ids, where that code stops with an error;
its variant that draws among equally short ways is left out.
"""

from __future__ import annotations

from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    fewest, width = [0] * (len(piece) + 1), [0] * (len(piece) + 1)
    for end in range(1, len(piece) + 1):
        best = len(piece) + 1
        for start in range(end - 1, max(-1, end - vocabulary.longest - 1), -1):
            if fewest[start] + 1 <= best and piece[start:end] in vocabulary.ids:
                best, width[end] = fewest[start] + 1, end - start
        if best > len(piece):
            vocabulary.byte(piece[end - 1])  # says which byte is missing
        fewest[end] = best
    ids, end = [], len(piece)
    while end:
        ids.append(vocabulary.ids[piece[end - width[end] : end]])
        end -= width[end]
    return ids[::-1]


PAPER = "PathPiece, https://arxiv.org/abs/2402.18376, section 3"
SEGMENTER = Segmenter("as few tokens as there can be", PAPER, segment)
