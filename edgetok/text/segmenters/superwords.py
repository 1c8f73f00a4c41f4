"""superwords: byte-pair encoding that takes tokens back, and joins words that are one token each.

Boundless Byte Pair Encoding: Breaking the Pre-tokenization Barrier, https://arxiv.org/abs/2504.00178, section 3;
deletions are those of PickyBPE, https://arxiv.org/abs/2409.04599. Published code: kensho-technologies/boundlessbpe
(Apache-2.0). Merges, deletions and joins of words share one order, which is gone through once for the whole text.

What differs: that code looks through the text again for each rule. Here a word's own steps are found once, with the
spans of the order in which it is one token; only joins of words look at the text, each pair of neighbours once. Deleted
tokens become single bytes, as in the paper (the code's `blowup`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from edgetok.errors import InputError
from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary

_NEVER = float("inf")


class _Word(NamedTuple):
    """What becomes of a word, or of words that were joined."""

    text: bytes
    ids: list[int]
    single: list[tuple[int, float]]  # between which rules, both excluded, it is one token


def document(pieces: Sequence[bytes], vocabulary: Vocabulary) -> list[int]:
    """Words -> ids."""
    if not vocabulary.supermerges:
        raise InputError("superwords are for vocabularies that join words, as BoundlessBPE's do: this one joins none")
    rules = vocabulary.supermerges
    alone = {piece: _alone(piece, vocabulary, -1) for piece in dict.fromkeys(pieces)}
    words: list[_Word | None] = [alone[piece] for piece in pieces]
    after, before = [*range(1, len(words)), -1], [*range(-1, len(words) - 1)]
    waiting: list[tuple[int, int, bytes, bytes]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else -1
        if right < 0:
            return
        first, second = words[left], words[right]
        assert first is not None and second is not None
        rule = rules.get((first.text, second.text))
        if rule is not None and _is_single(first, rule) and _is_single(second, rule):  # so it is behind what made them
            heapq.heappush(waiting, (rule, left, first.text, second.text))

    for left, pair in enumerate(pairwise(pieces)):
        if pair in rules:
            offer(left)
    joined: dict[tuple[bytes, int], _Word] = {}
    while waiting:
        rule, left, one, other = heapq.heappop(waiting)
        right, first = after[left], words[left]
        second = words[right] if right >= 0 else None
        if first is None or second is None or first.text != one or second.text != other:
            continue
        both = one + other, rule
        if both not in joined:
            joined[both] = _alone(one + other, vocabulary, rule)
        words[left], words[right] = joined[both], None
        after[left], after[right] = after[right], -1
        if after[left] >= 0:
            before[after[left]] = left
        offer(before[left])
        offer(left)
    return [number for word in words if word is not None for number in word.ids]


def _is_single(word: _Word, rule: int) -> bool:
    return any(start < rule < end for start, end in word.single)


def _alone(text: bytes, vocabulary: Vocabulary, joined: int) -> _Word:
    """Merge and delete within a word: from its bytes, or from one token where the rule `joined` made it.

    A token is known by the place of its first byte, so that places stay in order when tokens fall apart.
    """
    if joined >= 0 and text not in vocabulary.deletions:
        return _Word(text, [vocabulary.number(text)], [(joined, _NEVER)])
    tokens = {0: text} if joined >= 0 else {place: text[place : place + 1] for place in range(len(text))}
    starts = {place + len(token): place for place, token in tokens.items()}  # of the token that ends there
    single: list[tuple[int, float]] = [(joined, _NEVER)] if len(tokens) == 1 else []
    waiting: list[tuple[int, int, bytes, bytes]] = []

    def push(places: Iterable[int], limit: int) -> None:
        """Queue what the rules behind `limit` do to tokens, and to each and the next."""
        for place in places:
            left = tokens[place]
            rule = vocabulary.deletions.get(left, -1)
            if rule > limit:
                heapq.heappush(waiting, (rule, place, left, b""))
            right = tokens.get(place + len(left))
            rank = None if right is None else vocabulary.rank(left, right)
            if right is not None and rank is not None and rank > limit:
                heapq.heappush(waiting, (rank, place, left, right))

    push(tokens, joined)
    while waiting:
        rule, place, left, right = heapq.heappop(waiting)
        if tokens.get(place) != left or (right and tokens.get(place + len(left)) != right):
            continue
        first = starts[place] if place else 0  # of the neighbour
        if right:
            del tokens[place + len(left)]
            tokens[place], starts[place + len(left) + len(right)] = left + right, place
            push({first, place}, rule)
            if len(tokens) == 1:
                single.append((rule, _NEVER))
        else:
            if len(tokens) == 1:
                single[-1] = (single[-1][0], rule)
            for byte in range(place, place + len(left)):
                tokens[byte], starts[byte + 1] = text[byte : byte + 1], byte
            push({first, *range(place, place + len(left))}, rule)
    return _Word(text, [vocabulary.number(token) for _, token in sorted(tokens.items())], single)


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    return document([piece], vocabulary)


PAPER = "BoundlessBPE, https://arxiv.org/abs/2504.00178, section 3"
SEGMENTER = Segmenter("words that are one token each are joined", PAPER, segment, document)
