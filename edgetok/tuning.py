"""Choosing where tokens are reduced, by which technique, and how many: by what the device measures.

`grid` spells out the candidates, `tune` measures those that edgetok.search asks for, `decide` says what came of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from edgetok import technique
from edgetok.errors import EdgetokError, Refusal, UsageError
from edgetok.evaluation import Evaluation
from edgetok.flops import Work
from edgetok.journal import Journal
from edgetok.search import Candidate, Goal, next_candidate
from edgetok.statistics import beyond, ties

KEEPS = (0.8, 0.65, 0.5, 0.35, 0.2)
BELIEVED = 3  # comparisons after which the unreduced model's own time is believed to meet a target
Verdict = Literal["reduce", "do not reduce here", "out of reach"]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Wanted:
    """What the user asks for: exactly one of the two.

    Attributes:
        milliseconds: the highest fidelity that takes at most so long.
        cosine: the fastest with at least this cosine.
    """

    milliseconds: float | None = None
    cosine: float | None = None

    def __post_init__(self) -> None:
        if (self.milliseconds is None) == (self.cosine is None):
            got = "neither" if self.cosine is None else "both"
            raise UsageError(f"give one of --target-latency 25ms and --min-cosine 0.98; got {got}")
        if self.cosine is not None and not 0 < self.cosine < 1:
            raise UsageError(f"min_cosine={self.cosine:g}: accepted is a number between 0 and 1")

    def goal(self, unreduced: float) -> Goal:
        """The same, in shares of the unreduced model's latency."""
        return Goal(None if self.milliseconds is None else self.milliseconds / unreduced, self.cosine)


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        evaluations: the most that are measured, those of the journal included.
        seconds: the most time; the evaluation under way is finished. None for no limit.
    """

    evaluations: int = 20
    seconds: float | None = None


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        verdict: "reduce": by `chosen`; "do not reduce here": the unreduced model is the answer; "out of reach".
        why: the same in a sentence.
        chosen: the best that was measured; None where nothing is to be reduced.
    """

    verdict: Verdict
    why: str
    chosen: Evaluation | None = None


def duration(option: str, text: str) -> float:
    """Seconds of "25ms", "0.025s", "10m", "2h".

    Raises:
        UsageError: another spelling.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h)", text)
    if match is None or not float(match[1]):
        raise UsageError(f"{option} {text!r}: accepted is a time with its unit, as in 25ms, 0.025s, 10m or 2h")
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def grid(reduce: Sequence[str], work: Work, prefix: int) -> list[Candidate]:
    """The candidates: each technique x four ranges of layers (or the one that is given) x five counts.

    A count that some block would have to clamp is no candidate.

    Args:
        reduce: techniques with options of their own: "tome,pitome:margin=0.5", or several texts.
        work: of the unreduced model.
        prefix: leading tokens that are never reduced.

    Raises:
        UsageError: a text that says how many tokens go, a block that does not exist, or a model of hardly any tokens.
    """
    found: list[Candidate] = []
    for name, options in _techniques(reduce):
        layers = [option for option in options if option.startswith("layers=")]
        own = [option for option in options if option not in layers]
        for place in layers or _ranges(len(work.linear)):
            least, *specs = [
                technique.parse(f"{name}:{','.join([count, place, *own])}")
                for count in ("r=1", *(f"keep={keep}" for keep in KEEPS))
            ]
            least.schedule.resolve(work.tokens, prefix, len(work.linear))  # a block that does not exist is refused
            found += filter(None, (_candidate(spec, ":".join([name, *own]), work, prefix) for spec in specs))
    return list(dict.fromkeys(found))


def _candidate(spec: technique.Spec, label: str, work: Work, prefix: int) -> Candidate | None:
    """What is known of a choice; None where some block cannot give up what is asked of it."""
    blocks = len(work.linear)
    try:
        at_most = technique.load(spec.name).at_most
        counts, clamped = spec.schedule.resolve(work.tokens, prefix, blocks, at_most)
    except UsageError:
        return None
    if clamped or not counts:
        return None
    return Candidate(
        reduce=str(spec),
        technique=label,
        flops=work.share(counts),
        blocks=len(counts) / blocks,
        depth=sum(counts) / len(counts) / blocks,
        left=1 - sum(counts.values()) / work.tokens,
    )


def check_techniques(reduce: Sequence[str]) -> None:
    """Make sure that the texts name techniques and their options; worth asking before the source is captured.

    Raises:
        UsageError: one does not.
    """
    for name, options in _techniques(reduce):
        technique.parse(f"{name}:{','.join(['keep=0.5', *options])}")


def _techniques(reduce: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Name and options of each technique."""
    texts = [text for given in reduce for text in re.split(r",(?=[\w-]+(?:[:,]|$))", given)]
    if not texts:
        raise UsageError("give the techniques to choose from, as in --reduce tome,pitome")
    for text in dict.fromkeys(texts):
        name, _, rest = text.partition(":")
        if technique.load(name).where == "output":
            raise UsageError(f"{name} acts behind the encoder, which it makes no faster: choose from the others")
        options = [option for option in rest.split(",") if option]
        counts = [option for option in options if re.match(r"(r|keep|tokens|ratio|budget|inflect)=", option)]
        if counts:
            raise UsageError(
                f"{text!r}: how many tokens go is what tune finds out: leave out {counts[0]}; "
                "edgetok sweep measures what you spell out"
            )
        yield name, options


def _ranges(blocks: int) -> list[str]:
    """All blocks, without the first quarter, the second half, the first half."""
    quarter, half, last = blocks // 4, blocks // 2, blocks - 1
    ranges = dict.fromkeys([(0, last), (quarter, last), (half, last), (0, max(half - 1, 0))])
    return [f"layers={first}-{end}" for first, end in ranges]


def unreduced(evaluations: Sequence[Evaluation]) -> float:
    """Milliseconds of the unreduced model: the median of all its turns."""
    return median(theirs for each in evaluations for _, theirs in each.rounds)


def tune(
    candidates: Sequence[Candidate],
    evaluate: Callable[[str], Evaluation],
    journal: Journal,
    wanted: Wanted,
    limits: Limits,
    progress: Progress | None = None,
) -> tuple[Decision, dict[str, str]]:
    """Measure candidates until the best is known, or a limit is reached.

    Args:
        candidates: of `grid`.
        evaluate: measures one.
        journal: holds what was measured before, and gets what is measured now.
        wanted: what is asked for.
        limits: when to stop.
        progress: told what is measured, and how far the search is.

    Returns:
        What to do, and why the model refuses some candidates.

    Raises:
        Refusal: the model refuses all of them.
        EdgetokError: the time is over before anything was measured.
    """
    start, left, refused = time.monotonic(), list(candidates), dict[str, Refusal]()
    while len(journal.entries) < (most := min(limits.evaluations, len(left))):
        if limits.seconds is not None and time.monotonic() - start >= limits.seconds:
            break
        done = journal.entries
        base = unreduced(done) if done else 1.0
        if len(done) >= BELIEVED and wanted.milliseconds is not None and base <= wanted.milliseconds:
            break
        index = {candidate.reduce: i for i, candidate in enumerate(left)}
        figures = {index[each.reduce]: (1 / each.speedup.value, each.cosine) for each in done}
        number = next_candidate(left, figures, wanted.goal(base))
        if number is None:
            break
        chosen = left[number]
        if progress:
            progress(chosen.reduce, len(done) / most)
        try:
            journal.append(evaluate(chosen.reduce))
        except Refusal as refusal:  # of the technique, or of these layers: counts make no difference
            refused[chosen.reduce] = refusal
            left = [each for each in left if each.place != chosen.place]
    if not left:
        raise next(iter(refused.values()))
    if not journal.entries:
        raise EdgetokError(
            f"the time limit of {limits.seconds:g} s was over before the first candidate was measured: give more"
        )
    return decide(journal.entries, wanted), {reduce: str(refusal) for reduce, refusal in refused.items()}


def decide(evaluations: Sequence[Evaluation], wanted: Wanted) -> Decision:
    """What to do, of what was measured."""
    base = unreduced(evaluations)
    goal = wanted.goal(base)
    if goal.latency is not None and goal.latency >= 1:
        return Decision("do not reduce here", f"the unreduced model takes {base:.4g} ms, which meets the target")

    def latency(each: Evaluation) -> float:
        return 1 / each.speedup.value

    faster = [each for each in evaluations if each.is_faster]
    holding = [each for each in faster if goal.holds(latency(each), each.cosine)]
    if holding:
        best = min(holding, key=lambda each: (goal.cost(latency(each), each.cosine), latency(each)))
        why = f"{best.reduce}: {base * latency(best):.4g} ms, cosine {best.cosine:.4f}"
        if goal.cosine is not None:  # with a target latency the nearest is chosen, and cosines have no noise
            others = sorted((each for each in evaluations if each is not best), key=latency)
            why += ties([each.reduce for each in others if _may_be_as_fast(each, best, goal)])
        return Decision("reduce", why, best)
    if not faster:
        nearest = min(evaluations, key=latency)
        why = f"{len(evaluations)} measured, none is faster than the unreduced model beyond the interval; nearest: "
        why += f"{nearest.reduce}, {nearest.speedup} times as fast"
        return Decision("out of reach" if goal.latency is not None else "do not reduce here", why)
    if goal.latency is not None:
        nearest = min(faster, key=latency)
        return Decision(
            "out of reach",
            f"{len(evaluations)} measured, none takes at most {wanted.milliseconds:.4g} ms; nearest: "
            f"{nearest.reduce}, {base * latency(nearest):.4g} ms, cosine {nearest.cosine:.4f}",
        )
    nearest = max(faster, key=lambda each: each.cosine)
    return Decision(
        "do not reduce here",
        f"{len(evaluations)} measured, none is faster and holds cosine {wanted.cosine:g}; nearest: "
        f"{nearest.reduce}, cosine {nearest.cosine:.4f}, {base * latency(nearest):.4g} ms",
    )


def _may_be_as_fast(each: Evaluation, best: Evaluation, goal: Goal) -> bool:
    """Whether a choice meets the constraint and is not shown to be slower than another: their intervals meet."""
    speedup = each.speedup
    return goal.holds(1 / speedup.value, each.cosine) and not beyond(best.speedup.low, speedup.high)
