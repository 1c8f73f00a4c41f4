"""scaffold: byte-pair encoding, whose tokens that only help to build others are taken apart again.

Scaffold-BPE: Enhancing Byte Pair Encoding for Large Language Models with Simple and Effective Scaffold Token Removal,
https://arxiv.org/abs/2404.17808, section 3: a text is merged with all tokens; each scaffold token that is left becomes
the shortest sequence of other tokens that merges make it from. The authors' code was not found; of equally short
sequences the lower ids come first, as in yerinNam/h-scaffold-bpe.
"""

from __future__ import annotations

from functools import lru_cache

from edgetok.errors import InputError
from edgetok.text.segmenter import Segmenter
from edgetok.text.segmenters.merge_rank import tokens
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids, none of them of a scaffold"""
    if not vocabulary.scaffolds:
        raise InputError(
            "scaffold is for vocabularies that name their scaffold tokens, and this one names none: "
            "dataclasses.replace(vocabulary, scaffolds={...})"
        )
    return [number for token in tokens(piece, vocabulary) for number in _demolished(token, vocabulary)]


@lru_cache(maxsize=1 << 16)
def _demolished(token: bytes, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The shortest ids of a token's bytes, by the merges that make it."""
    if token not in vocabulary.scaffolds:
        return (vocabulary.number(token),)
    ways = [
        _demolished(token[:cut], vocabulary) + _demolished(token[cut:], vocabulary)
        for cut in range(1, len(token))
        if vocabulary.rank(token[:cut], token[cut:]) is not None
    ]
    if not ways:
        raise InputError(f"the scaffold token {token!r} is made of no others: it cannot be taken apart")
    return min(ways, key=lambda ids: (len(ids), ids))


PAPER = "Scaffold-BPE, https://arxiv.org/abs/2404.17808, section 3"
SEGMENTER = Segmenter("the lowest rank first, and scaffold tokens taken apart again", PAPER, segment)
