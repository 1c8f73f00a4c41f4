"""One choice of techniques, measured: its latency against the unreduced model's, and its fidelity on samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgetok import technique
from edgetok.manifest import Fidelity
from edgetok.statistics import Quantile, ratio
from edgetok.technique import Spec

if TYPE_CHECKING:
    import numpy as np

    from edgetok.flops import Work
    from edgetok.model import TensorSpec
    from edgetok.transform import Transformed
    from edgetok.worker import Side, Worker

Milliseconds = Annotated[float, Field(gt=0)]


class Evaluation(BaseModel):
    """What was measured of one choice.

    Attributes:
        reduce: the choice, in one spelling: "tome:keep=0.5", or several with " + " between them.
        tokens: left behind the last block.
        flops: share of the unreduced model's multiplications; see edgetok/flops.py.
        fidelity: of each output, over all samples.
        rounds: milliseconds of this choice and of the unreduced model, the median of each turn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reduce: str
    tokens: int
    flops: float
    fidelity: Annotated[tuple[Fidelity, ...], Field(min_length=1)]
    rounds: Annotated[tuple[tuple[Milliseconds, Milliseconds], ...], Field(min_length=1)]

    @property
    def cosine(self) -> float:
        """The least of any output's."""
        return min(each.cosine for each in self.fidelity)

    @property
    def speedup(self) -> Quantile:
        """How many times this runs while the unreduced model runs once."""
        return ratio([(unreduced, own) for own, unreduced in self.rounds])

    @property
    def is_faster(self) -> bool:
        """Whether it is faster than the unreduced model beyond the interval."""
        return self.speedup.low is not None and self.speedup.low > 1


@dataclass(frozen=True, eq=False)
class Task:
    """What choices are measured on.

    Attributes:
        build: makes the graph of a choice, with the bodies of its functions; of the unreduced model for no techniques.
        work: of the unreduced model.
        prefix: leading tokens that are never reduced.
        inputs: of the graph.
        feeds: the samples that fidelity is measured on.
        timed: the one that latency is measured on.
        original: the original's outputs for the samples.
        runtime: the name of the runtime.
    """

    build: Callable[[Sequence[Spec]], Transformed]
    work: Work
    prefix: int
    inputs: tuple[TensorSpec, ...]
    feeds: dict[str, np.ndarray]
    timed: dict[str, np.ndarray]
    original: Mapping[str, np.ndarray]
    runtime: str = "onnxruntime"


class Bench:
    """Measures choices, each in a process of its own, in turns with the unreduced model in another.

    with Bench(task) as bench:
        evaluation = bench.evaluate("tome:keep=0.5")

    Args:
        task: what is measured.
        rounds: how many turns each side takes, at least nine.
        seconds: the most that one comparison's turns take together.

    Attributes:
        cosine: of the unreduced model with the original: below 1 in half precision.
    """

    def __init__(self, task: Task, *, rounds: int = 9, seconds: float = 1.5):
        self.task, self.rounds, self.seconds = task, rounds, seconds
        self._candidate: Worker | None = None

    def __enter__(self) -> Bench:
        from edgetok.files import sha256_of
        from edgetok.worker import Worker

        self._stack = ExitStack()
        try:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="edgetok-")))
            side = self._side("unreduced", self.task.build(()), folder)
            self._digest = sha256_of(*sorted(folder.iterdir()))
            self._unreduced = self._stack.enter_context(Worker(side))
            self.cosine = min(each.cosine for each in self._fidelity(self._unreduced))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def stop(self) -> None:
        """End what is being measured, from another thread: `evaluate` raises an EdgetokError there."""
        for worker in (self._candidate, self._unreduced):
            if worker is not None:
                worker.kill()

    def identity(self) -> dict[str, str]:
        """What the figures belong to: the model, the samples, the runtime, the processor and how it is timed."""
        from edgetok import samples
        from edgetok.fingerprint import cpu_model

        runtime = self._unreduced.description
        return {
            "model": self._digest,
            "samples": hashlib.sha256(samples.to_bytes(self.task.feeds)).hexdigest(),
            "runtime": f"{runtime['runtime']} {runtime['version']}, threads: {runtime['threads']}",
            "cpu": cpu_model(),
            "rounds": str(self.rounds),
        }

    def evaluate(self, reduce: str) -> Evaluation:
        """Measure a choice.

        Raises:
            Refusal: the model's tokens cannot be reduced like that.
            UsageError: it is none, or does not fit the model.
        """
        from edgetok.comparison import compare
        from edgetok.worker import Worker

        task, done = self.task, self.task.build(parse(reduce))
        with TemporaryDirectory(prefix="edgetok-") as folder, Worker(self._side(reduce, done, Path(folder))) as worker:
            self._candidate = worker
            fidelity = self._fidelity(worker, apart=done.dynamic)
            (found,) = compare([worker, self._unreduced], rounds=self.rounds, max_seconds=self.seconds)
        gone = {step.block: step.tokens_in - step.tokens_out for step in done.schedule if step.block is not None}
        return Evaluation(
            reduce=reduce,
            tokens=task.work.tokens - sum(gone.values()),
            flops=task.work.share(gone),
            fidelity=fidelity,
            rounds=found.rounds,
        )

    def _fidelity(self, worker: Worker, apart: bool = False) -> tuple[Fidelity, ...]:
        """How near a worker's outputs come to the original's, on all samples, or as many at a time as are timed."""
        from edgetok.fidelity import compare_outputs
        from edgetok.transform import aligned, aligned_apart

        feeds, original = self.task.feeds, self.task.original
        if apart:
            pair = aligned_apart(worker.run, feeds, original, len(next(iter(self.task.timed.values()))))
        else:
            pair = aligned(worker.run(feeds), original)
        return compare_outputs(*pair, feeds.get("attention_mask"))

    def _side(self, label: str, done: Transformed, folder: Path) -> Side:
        """A graph, written into a folder, as what a worker runs."""
        from edgetok.serialize import write_model
        from edgetok.worker import Side

        write_model(done.model, folder)
        return Side(label, folder / "model.onnx", self.task.inputs, self.task.timed, runtime=self.task.runtime)


def parse(reduce: str) -> list[Spec]:
    """The techniques of one choice: "tome:r=8,layers=0-5 + random:r=4,layers=6-11"."""
    return [technique.parse(part.strip()) for part in reduce.split("+")]


def spell(reduce: str) -> str:
    """A choice in its one spelling."""
    return " + ".join(map(str, parse(reduce)))
