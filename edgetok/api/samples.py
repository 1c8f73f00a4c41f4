"""Graphs on the samples of an export: as they stand, and with other weights in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.model import TensorSpec

    Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class OnSamples:
    """Runs graphs on samples: called with one, it gives the outputs.

    Attributes:
        inputs: what the graphs take.
        feeds: the samples.
        original: the original model's outputs on them.
    """

    inputs: Sequence[TensorSpec]
    feeds: Arrays
    original: Arrays

    def __call__(self, model: ir.Model) -> Arrays:
        return run_graph(model, self.inputs, self.feeds)

    def measure(self, model: ir.Model, trials: Iterable[Mapping[str, np.ndarray]]) -> Iterator[float]:
        """The least cosine of the outputs with the original's, with each trial's weights in turn, in one session."""
        from edgetok.fidelity import compare_outputs
        from edgetok.plugins import add_functions
        from edgetok.runtimes.ort import session
        from edgetok.serialize import write_model
        from edgetok.transform import aligned

        add_functions(model)
        with TemporaryDirectory(prefix="edgetok-") as folder:
            write_model(model, Path(folder))
            made = session(Path(folder) / "model.onnx", plain=True)
            names = [output.name for output in made.get_outputs()]
            for trial in trials:
                outputs = dict(zip(names, made.run(None, {**self.feeds, **trial}), strict=True))
                near = compare_outputs(*aligned(outputs, self.original), self.feeds.get("attention_mask"))
                yield min(each.cosine for each in near)


def run_graph(model: ir.Model, inputs: Sequence[TensorSpec], feeds: Arrays) -> Arrays:
    """Run a graph on onnxruntime, once."""
    with running(model, inputs) as run:
        return run(feeds)


@contextmanager
def running(model: ir.Model, inputs: Sequence[TensorSpec]) -> Iterator[Callable[[Arrays], Arrays]]:
    """A graph on onnxruntime, by the functions that it is given: a bundle does not depend on what was built here."""
    from edgetok import runtimes
    from edgetok.plugins import add_functions
    from edgetok.serialize import write_model

    add_functions(model)
    with TemporaryDirectory(prefix="edgetok-") as folder:
        write_model(model, Path(folder))
        with runtimes.load("onnxruntime")(Path(folder) / "model.onnx", inputs, plain=True) as runtime:
            yield runtime.run
