"""greedy: the longest token that the rest begins with, again and again, as WordPiece's inference does.

Greed is All You Need: An Evaluation of Tokenizer Inference Methods, https://arxiv.org/abs/2403.01289, section 2
(longest prefix).
"""

from __future__ import annotations

from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    ids, start = [], 0
    while start < len(piece):
        for end in range(min(len(piece), start + vocabulary.longest), start + 1, -1):
            if (number := vocabulary.ids.get(piece[start:end])) is not None:
                break
        else:
            end, number = start + 1, vocabulary.byte(piece[start])
        ids.append(number)
        start = end
    return ids


SEGMENTER = Segmenter("the longest token first, from the left", "https://arxiv.org/abs/2403.01289, section 2", segment)
