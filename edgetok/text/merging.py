"""Byte-pair merging of any symbols: the pair with the lowest rank first, of equal ones the left."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def merge(symbols: Sequence[T], rule: Callable[[T, T], tuple[int, T] | None]) -> list[T]:
    """Join neighbours as long as a rule does.

    A heap in place of a search at each step: n symbols take n log n; entries that a join made stale are passed over.

    Args:
        symbols: none of them is None.
        rule: of two neighbours: when they are joined, the lowest first, and to what; None for never.
    """
    parts: list[T | None] = list(symbols)
    after, before = [*range(1, len(parts)), -1], [*range(-1, len(parts) - 1)]
    waiting: list[tuple[int, int, T, T, T]] = []

    def offer(left: int) -> None:
        right = after[left] if left >= 0 else -1
        if right < 0:
            return
        first, second = parts[left], parts[right]
        assert first is not None and second is not None
        found = rule(first, second)
        if found is not None:
            heapq.heappush(waiting, (found[0], left, first, second, found[1]))

    for left in range(len(parts) - 1):
        offer(left)
    while waiting:
        _, left, one, other, made = heapq.heappop(waiting)
        right = after[left]
        if parts[left] != one or right < 0 or parts[right] != other:
            continue
        parts[left], parts[right] = made, None
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        after[right] = -1
        offer(before[left])
        offer(left)
    return [part for part in parts if part is not None]
