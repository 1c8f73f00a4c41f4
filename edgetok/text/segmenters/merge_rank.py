"""merge_rank: byte-pair encoding's own way: the pair with the lowest rank is joined first, of equal ones the left.

Neural Machine Translation of Rare Words with Subword Units, https://arxiv.org/abs/1508.07909, section 3.2; on bytes as
in GPT-2. What differs from most implementations: a heap instead of a search at each step, so that a piece of n bytes
takes n log n; entries that a merge made stale are passed over.
"""

from __future__ import annotations

import heapq

from edgetok.text.segmenter import Segmenter
from edgetok.text.vocabulary import Vocabulary


def segment(piece: bytes, vocabulary: Vocabulary) -> list[int]:
    """bytes -> ids"""
    if (whole := vocabulary.ids.get(piece)) is not None and vocabulary.merges is None:
        return [whole]
    parts: list[bytes | None] = [piece[i : i + 1] for i in range(len(piece))]
    after, before = [*range(1, len(piece)), -1], [*range(-1, len(piece) - 1)]
    waiting: list[tuple[int, int, bytes, bytes]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else -1
        if right < 0:
            return
        first, second = parts[left], parts[right]
        assert first is not None and second is not None
        rank = vocabulary.rank(first, second)
        if rank is not None:
            heapq.heappush(waiting, (rank, left, first, second))

    for left in range(len(piece) - 1):
        offer(left)
    while waiting:
        _, left, first, second = heapq.heappop(waiting)
        right = after[left]
        if parts[left] != first or right < 0 or parts[right] != second:
            continue
        parts[left], parts[right] = first + second, None
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        after[right] = -1
        offer(before[left])
        offer(left)
    return [vocabulary.number(part) for part in parts if part is not None]


PAPER = "Byte-pair encoding, https://arxiv.org/abs/1508.07909, section 3.2"
SEGMENTER = Segmenter("the pair with the lowest rank first", PAPER, segment)
