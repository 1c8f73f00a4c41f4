"""How many tokens go in which block."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise

from edgetok.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """The options that every technique shares. Exactly one of r, keep, tokens, ratio and budget is given.

    Attributes:
        r: tokens that go in each block: "16", or one number per block, "16/12/8".
        keep: share of the tokens (prefix not counted) left behind the last reduced block, by equal steps.
        tokens: count of tokens (prefix not counted) left behind the last reduced block, by equal steps.
        ratio: share of the tokens (prefix not counted) that each block keeps.
        budget: "flops:0.6": the r that leaves at most this share of the model's multiplications.
        inflect: slope of r over the blocks, -1 (from 2r down to 0) to 1 (from 0 up to 2r).
        layers: the blocks that reduce, "2-11" or "3/6/9"; all of them when not given.
    """

    r: str = ""
    keep: float = 0.0
    tokens: int = 0
    ratio: float = 0.0
    budget: str = ""
    inflect: float = 0.0
    layers: str = ""

    @classmethod
    def parse(cls, given: dict[str, str]) -> Schedule:
        """From the texts that the user gave.

        Raises:
            UsageError: a value out of range, or not exactly one of r, keep, tokens, ratio and budget.
        """
        chosen = [key for key in ("r", "keep", "tokens", "ratio", "budget") if key in given]
        if len(chosen) != 1:
            got = " and ".join(chosen) or "none of them"
            raise UsageError(
                "give exactly one of r=16 (tokens per block), keep=0.5, tokens=64, ratio=0.9 or budget=flops:0.6; "
                f"got {got}"
            )
        numbers = {key: _number(key, text) for key, text in given.items() if key in ("keep", "ratio", "inflect")}
        r, budget, layers = (given.get(key, "") for key in ("r", "budget", "layers"))
        schedule = cls(r=r, budget=budget, layers=layers, tokens=_count(given.get("tokens", "")), **numbers)
        schedule._counts()
        schedule.flops  # noqa: B018
        schedule._blocks(None)
        if schedule.inflect and "/" in schedule.r:
            raise UsageError("inflect shapes a single r; with one number per block leave it out")
        return schedule

    def first(self) -> int:
        """The first block that reduces."""
        return self._blocks(None)[0] if self.layers else 0

    @property
    def flops(self) -> float:
        """The share of the multiplications that may be left.

        Raises:
            UsageError: a budget of another spelling.
        """
        if not self.budget:
            return 1.0
        unit, _, share = self.budget.partition(":")
        if unit != "flops" or not share:
            raise UsageError(f"budget={self.budget!r}: accepted is a share of the multiplications, as in flops:0.6")
        return _number("budget", share)

    def options(self) -> list[str]:
        """`key=value` of what was given, in a fixed order."""
        return [
            f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self) if getattr(self, f.name) != f.default
        ]

    def behind(self, free: int) -> int:
        """The count of tokens that go behind the encoder, of `free` that can.

        Raises:
            UsageError: the options say how many go in which block.
        """
        if not (self.keep or self.tokens) or self.layers:
            raise UsageError("behind the encoder give keep=0.25 or tokens=64: what is left")
        return free - self._left(free)

    def resolve(self, tokens: int, prefix: int, blocks: int, at_most: float = 0.5) -> tuple[dict[int, int], list[str]]:
        """The count of tokens that go in each block.

        Where more are wanted than can go at once, later blocks are clamped, with a note. One token is always left.

        Args:
            tokens: of the first block, prefix included.
            prefix: leading tokens that never go.
            blocks: of the model.
            at_most: the largest share of the tokens (prefix not counted) that can go at once.

        Returns:
            {block: r} without zeros, and notes for the user.

        Raises:
            UsageError: a block that does not exist, or the first block would already be clamped.
        """
        layers = self._blocks(blocks)
        result: dict[int, int] = {}
        notes = []
        for step, (block, wanted) in enumerate(zip(layers, self._wanted(layers, tokens - prefix), strict=True)):
            free = tokens - prefix
            if wanted is None:
                wanted = int(free - free * self.ratio)
            limit = min(int(free * at_most), free - 1)
            r = min(wanted, limit)
            if r < wanted:
                if step == 0:
                    raise UsageError(
                        f"{wanted} tokens cannot go from block {block}: it has {tokens}, {prefix} of them prefix; "
                        f"give at most {limit}"
                    )
                notes.append(f"block {block}: {wanted} tokens wanted, {r} of {tokens} can go")
            if r > 0:
                result[block] = r
                tokens -= r
        return result, notes

    def _wanted(self, layers: list[int], free: int) -> list[int | None]:
        """The count per reduced block; None where it depends on what is left."""
        if self.ratio:
            return [None] * len(layers)
        if self.keep or self.tokens:
            total = free - self._left(free)
            edges = [total * step // len(layers) for step in range(len(layers) + 1)]
            return [after - before for before, after in pairwise(edges)]
        counts = self._counts()
        if len(counts) > 1:
            if len(counts) != len(layers):
                raise UsageError(f"r={self.r} has {len(counts)} numbers for {len(layers)} blocks")
            return list(counts)
        low = int(counts[0] * (1 - self.inflect))
        step = (2 * counts[0] - 2 * low) / max(len(layers) - 1, 1)
        return [int(low + step * i) for i in range(len(layers))]

    def _left(self, free: int) -> int:
        if self.tokens > free:
            raise UsageError(f"tokens={self.tokens}: there are {free}, prefix not counted; give fewer")
        return self.tokens or max(round(free * self.keep), 1)

    def _counts(self) -> list[int]:
        parts = self.r.split("/") if self.r else []
        if not all(part.isdecimal() for part in parts):
            raise UsageError(f"r={self.r!r}: accepted is a count such as 16, or one per block such as 16/12/8")
        return [int(part) for part in parts]

    def _blocks(self, blocks: int | None) -> list[int]:
        return chosen_blocks(self.layers, blocks)


def chosen_blocks(layers: str, blocks: int | None) -> list[int]:
    """The blocks that "2-11" or "3/6/9" names, in order; all of them where it is empty.

    Args:
        layers: as the user gave it.
        blocks: how many there are; None checks the spelling only.

    Raises:
        UsageError: another spelling, or a block that does not exist.
    """
    if not layers:
        return list(range(blocks or 0))
    chosen: set[int] = set()
    for part in layers.split("/"):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"layers={layers!r}: accepted is a range such as 2-11, or blocks such as 3/6/9")
        chosen.update(range(int(first), int(last or first) + 1))
    if blocks is not None and max(chosen) >= blocks:
        raise UsageError(f"layers={layers}: block {max(chosen)} does not exist; the model has blocks 0-{blocks - 1}")
    return sorted(chosen)


def _number(key: str, text: str) -> float:
    low, high = {"keep": (0.0, 1.0), "ratio": (0.0, 1.0), "budget": (0.0, 1.0), "inflect": (-1.0, 1.0)}[key]
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"{key}={text!r}: accepted is a number from {low:g} to {high:g}") from None
    if not low <= number <= high or (key != "inflect" and number == 0):
        raise UsageError(f"{key}={text}: accepted is a number from {low:g} to {high:g}")
    return number


def _count(text: str) -> int:
    if text and not (text.isdecimal() and int(text)):
        raise UsageError(f"tokens={text!r}: accepted is a count such as 64")
    return int(text or 0)
