"""greedy_suffix: the longest token that the rest ends with, from the right.

Greed is All You Need: An Evaluation of Tokenizer Inference Methods, https://arxiv.org/abs/2403.01289, section 2
(longest suffix).
"""

from __future__ import annotations

from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    ids, end = [], len(piece)
    while end:
        for start in range(max(0, end - vocabulary.longest), end - 1):
            if (number := vocabulary.ids.get(piece[start:end])) is not None:
                break
        else:
            start, number = end - 1, vocabulary.byte(piece[end - 1])
        ids.append(number)
        end = start
    return ids[::-1]


SEGMENTER = Segmenter("the longest token first, from the right", "https://arxiv.org/abs/2403.01289, section 2", segment)
