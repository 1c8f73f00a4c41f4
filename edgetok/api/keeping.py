"""Rounded activations timed block by block, with and without, for `keep=faster`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgetok.worker import Side, Worker

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgetok.api.samples import OnSamples
    from edgetok.layers import LayerTable
    from edgetok.lowbit.activations import Spec
    from edgetok.lowbit.quantise import FewBits

ROUNDS = 11  # the median's 95 % interval goes from the second to the tenth
TURN = 0.25  # seconds that a side runs in a round
FEWEST, MOST = 5, 30  # runs of it; the log of each is read back, which takes longer than a small model's run


def keep_faster(
    model: ir.Model, few_bits: FewBits, on_samples: OnSamples, batch: int, say: Callable[[str], None]
) -> tuple[FewBits, str]:
    """Resolve keep=faster.

    Args:
        model: typed, reduced and named, without anything of few bits; it stays as it is.
        few_bits: what was asked for.
        on_samples: the samples; the first `batch` are run.
        batch: how many samples one run takes.
        say: told what is being done.

    Returns:
        What was asked for with the activations that stay rounded, and a note for the user.
    """
    from edgetok.lowbit.activations import readers_of_products
    from edgetok.lowbit.faster import decide

    spec = few_bits.activations
    assert spec is not None
    readers = [node for places in readers_of_products(model, spec).values() for node, _ in places]
    rounded = {(node.name or "").split("/")[0] for node in readers}

    def timed(specs: Sequence[Spec | None]) -> list[list[LayerTable]]:
        say("timing blocks with and without rounded activations")
        with TemporaryDirectory(prefix="edgetok-") as folder, ExitStack() as stack:
            files = [_written(model, replace(few_bits, activations=each), Path(folder), str(each)) for each in specs]
            feeds = {name: array[:batch] for name, array in on_samples.feeds.items()}
            sides = [Side(file.parent.name, file, tuple(on_samples.inputs), feeds) for file in files]
            return in_turns([stack.enter_context(Worker(side)) for side in sides])

    kept = decide(spec, rounded, timed)
    return replace(few_bits, activations=kept.spec), kept.note


def in_turns(workers: Sequence[Worker]) -> list[list[LayerTable]]:
    """Times per block of each round, one side after the other, in alternating order."""
    from edgetok.layers import layer_table

    runs = [min(MOST, max(FEWEST, ceil(TURN * 1e3 / median(worker.sample(10)[5:])))) for worker in workers]
    tables: list[list[LayerTable]] = [[] for _ in workers]
    for turn in range(ROUNDS):
        order = range(len(workers)) if turn % 2 == 0 else reversed(range(len(workers)))
        for side in order:
            tables[side].append(layer_table(workers[side].profile(warm_up=2, runs=runs[side])))
    return tables


def _written(model: ir.Model, few_bits: FewBits, folder: Path, name: str) -> Path:
    """The graph with these few bits, as ONNX Runtime gets it."""
    from edgetok import lowering, native
    from edgetok.plugins import add_functions
    from edgetok.serialize import write_model

    copy = model.clone()
    few_bits.apply(copy)
    add_functions(copy)
    if few_bits.weights:
        lowering.lower(copy, "a32", native.library() is not None)
    file = folder / name.translate(str.maketrans("/:,=", "____")) / "model.onnx"
    file.parent.mkdir()
    write_model(copy, file.parent)
    return file
