"""What choices of techniques are measured on: a model, captured once, and samples with the original's outputs.

It is made where the source is, and can be packed: another machine needs neither the source, nor its framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

from edgetok.api.samples import OnSamples, run_graph
from edgetok.errors import UsageError
from edgetok.manifest import Dtype

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.evaluation import Task
    from edgetok.exporters.sources import CaptureOptions
    from edgetok.model import TensorSpec
    from edgetok.technique import Spec
    from edgetok.transform import Transformed

    Arrays = dict[str, np.ndarray]

Progress = Callable[[str, float], None]
_SAMPLES, _ORIGINAL, _REST = "samples.safetensors", "original.safetensors", "subject.json"


@dataclass(frozen=True, eq=False)
class Subject:
    """A captured model with its samples.

    Attributes:
        name: of the source, with its kind.
        model: the captured graph; choices are made of copies.
        inputs: of the graph.
        feeds: the samples that fidelity is measured on.
        original: the original's outputs for them.
        dtype: "fp32", "fp16" or "bf16".
        batch: how many of the samples latency is measured with.
    """

    name: str
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    feeds: Arrays
    original: Arrays
    dtype: Dtype
    batch: int

    def task(self) -> Task:
        """The same, as `edgetok.evaluation.Bench` takes it."""
        from edgetok.evaluation import Task
        from edgetok.flops import Work
        from edgetok.plugins import add_functions
        from edgetok.transform import transform
        from edgetok.view import TransformerView

        view = TransformerView.of(self.model)
        on_samples = OnSamples(self.inputs, self.feeds, self.original)

        def build(specs: Sequence[Spec]) -> Transformed:
            done = transform(self.model.clone(), specs, dtype=self.dtype, emit="full", run=on_samples)
            add_functions(done.model)
            return done

        timed = {name: array[: self.batch] for name, array in self.feeds.items()}
        return Task(build, Work.of(view), view.prefix, self.inputs, self.feeds, timed, self.original)

    def pack(self) -> dict[str, bytes]:
        """Files that `unpack` makes the same of on another machine."""
        from edgetok import samples
        from edgetok.serialize import write_model

        rest = {
            "name": self.name,
            "inputs": [(spec.name, spec.dtype, spec.shape) for spec in self.inputs],
            "dtype": self.dtype,
            "batch": self.batch,
        }
        with TemporaryDirectory(prefix="edgetok-") as folder:
            write_model(self.model, Path(folder))
            files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        files |= {_SAMPLES: samples.to_bytes(self.feeds), _ORIGINAL: samples.to_bytes(self.original)}
        return files | {_REST: json.dumps(rest).encode()}

    @classmethod
    def unpack(cls, files: Mapping[str, bytes], folder: Path) -> Subject:
        """A subject from its files; `folder`, an empty one, must stay as long as it is used."""
        import onnx_ir as ir

        from edgetok import samples
        from edgetok.model import TensorSpec
        from edgetok.verify import MODEL, WEIGHTS

        for name in (MODEL, WEIGHTS):
            if name in files:
                (folder / name).write_bytes(files[name])
        rest = json.loads(files[_REST])
        return cls(
            name=rest["name"],
            model=ir.load(folder / MODEL),
            inputs=tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in rest["inputs"]),
            feeds=samples.from_bytes(files[_SAMPLES]),
            original=samples.from_bytes(files[_ORIGINAL]),
            dtype=rest["dtype"],
            batch=rest["batch"],
        )


def prepare(
    source: str, samples: str | Path | None, options: CaptureOptions, dtype: Dtype, progress: Progress | None
) -> Subject:
    """Capture the source, once: all that is measured is derived from that.

    Raises:
        UsageError: no samples, or another type.
        EdgetokError: the source cannot be captured, or its graph strays from the original.
    """
    from functools import partial

    from edgetok.exporters.sources import capture
    from edgetok.fidelity import check_exact
    from edgetok.transform import sample_inputs

    say = progress or (lambda *_: None)
    if dtype not in get_args(Dtype):
        raise UsageError(f"dtype {dtype!r}: accepted are {', '.join(get_args(Dtype))}")
    if samples is None:
        raise UsageError(
            "give --samples DIR, files such as the model will see (.npz for inputs that are no picture, recording or "
            "text): fidelity on noise would say little"
        )
    say(f"capturing {source}", 0.0)
    captured = capture(source, options)
    folder = next(iter(captured.files.values())).parent if captured.files else Path(samples)
    feeds = sample_inputs(Path(samples), captured.inputs, folder, captured.example)
    say("running the original", 0.0)
    original = captured.reference(feeds)
    judged = captured.check_near_ties and partial(captured.check_near_ties, feeds)
    for note in check_exact(run_graph(captured.model, captured.inputs, feeds), original, judged):
        say(note, 0.0)
    name = f"{captured.origin.kind}: {captured.origin.name}"
    return Subject(name, captured.model, captured.inputs, feeds, original, dtype, options.batch or 1)
