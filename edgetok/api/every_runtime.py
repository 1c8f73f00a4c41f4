"""A bundle on every runtime that is installed: how fast, and how near to its original."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from edgetok.errors import EdgetokError

if TYPE_CHECKING:
    import numpy as np

    from edgetok.bundle import Bundle
    from edgetok.manifest import Fidelity
    from edgetok.report import OnRuntime
    from edgetok.worker import Worker

    Arrays = dict[str, np.ndarray]


def on_every_runtime(
    bundle: Bundle, feeds: Arrays, progress: Callable[[str, float], None] | None
) -> tuple[OnRuntime, ...]:
    """The bundle in a32 on each: in turns with ONNX Runtime, its outputs beside that one's and the original's.

    One that cannot load or run the bundle is told with its reason; the others are compared all the same.

    Args:
        bundle: what is run.
        feeds: what is timed.
        progress: told how far the comparison is.
    """
    from edgetok import comparison, runtimes
    from edgetok.api.measuring import side
    from edgetok.fidelity import compare_outputs
    from edgetok.report import OnRuntime
    from edgetok.worker import Worker

    samples = bundle.samples("inputs")
    workers: list[Worker] = []
    outputs: list[Arrays] = []
    refused: list[OnRuntime] = []
    with ExitStack() as stack:
        for name in runtimes.of_files():
            try:
                worker = stack.enter_context(Worker(replace(side(bundle, feeds, runtime=name), label=name)))
                outputs.append(worker.run(samples))
            except EdgetokError as error:
                if not workers:  # ONNX Runtime runs every bundle: what fails there is no matter of the runtime
                    raise
                refused.append(OnRuntime(runtime={"runtime": name}, refused=str(error)))
            else:
                workers.append(worker)
        original = [_to_original(bundle, worker, got) for worker, got in zip(workers, outputs, strict=True)]
        if len(workers) == 1:
            alone = median(workers[0].sample(15))
            return (OnRuntime(runtime=workers[0].description, median=alone, original=original[0]), *refused)
        compared = comparison.compare([*workers[1:], workers[0]], progress=progress)
    first = median(theirs for _, theirs in compared[0].rounds)
    return (
        OnRuntime(runtime=workers[0].description, median=first, original=original[0]),
        *(
            OnRuntime(
                runtime=worker.description,
                median=first / each.speedup.value,
                speedup=each.speedup,
                fidelity=compare_outputs(got, outputs[0], samples.get("attention_mask")),
                original=near,
            )
            for worker, each, got, near in zip(workers[1:], compared, outputs[1:], original[1:], strict=True)
        ),
        *refused,
    )


def _to_original(bundle: Bundle, worker: Worker, outputs: Arrays) -> tuple[Fidelity, ...]:
    """How near the outputs for the samples come to the original's; nothing of a tokenizer: ids have no nearness."""
    from edgetok.fidelity import compare_outputs
    from edgetok.transform import aligned, aligned_apart

    if bundle.manifest.tokenizer is not None:
        return ()
    samples, original = bundle.samples("inputs"), bundle.samples("original")
    if any(step.dynamic for step in bundle.manifest.schedule):
        pair = aligned_apart(worker.run, samples, original, bundle.manifest.recipe.batch or 1)
    else:
        pair = aligned(outputs, original)
    return compare_outputs(*pair, samples.get("attention_mask"))
