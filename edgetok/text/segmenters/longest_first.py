"""longest_first: the longest token that occurs anywhere is taken first, then the longest in what is left.

LBPE: Long-token-first Tokenization to Improve Large Language Models, https://arxiv.org/abs/2411.05504, abstract: tokens
go by their length and not by their rank. No published code was found, and the paper's text could not be read here; of
equally long tokens the lower id comes first, and occurrences are taken from the left. Whether the paper restricts
itself to tokens that merges can reach is not known.
"""

from __future__ import annotations

from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    parts: list[bytes | int] = [piece]
    for length in range(min(len(piece), vocabulary.longest), 1, -1):
        cut = ([part] if isinstance(part, int) else _taken(part, length, vocabulary) for part in parts)
        parts = [part for several in cut for part in several]
    ids = ([part] if isinstance(part, int) else map(vocabulary.byte, part) for part in parts)
    return [number for several in ids for number in several]


def _taken(part: bytes, length: int, vocabulary: Vocabulary) -> list[bytes | int]:
    """Bytes, and in them the ids of tokens of one length, the lowest first."""
    found = {vocabulary.ids.get(part[i : i + length]) for i in range(len(part) - length + 1)} - {None}
    parts: list[bytes | int] = [part]
    for number in sorted(number for number in found if number is not None):
        token, split = vocabulary.tokens[number], list[bytes | int]()
        for each in parts:
            if isinstance(each, int):
                split.append(each)
                continue
            left, *rest = each.split(token)
            split.append(left)
            for right in rest:
                split += [number, right]
        parts = split
    return parts


SEGMENTER = Segmenter("the longest token anywhere first", "LBPE, https://arxiv.org/abs/2411.05504, abstract", segment)
