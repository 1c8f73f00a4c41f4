"""What the sources share whose graph edgetok writes itself, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgetok import graph as g
from edgetok.inputs import example_inputs
from edgetok.model import Captured, Origin
from edgetok.serialize import write_model

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.preprocess import Preprocess


def captured(
    build: Callable[[], ir.Model],
    origin: Origin,
    preprocess: Mapping[str, Preprocess],
    *,
    batch: int | None,
    files: Mapping[str, Path] | None = None,
) -> Captured:
    """Capture a graph that is written anew for each run of the original.

    Techniques change the graph in place, and a second copy of the weights is not kept.

    Args:
        build: writes the graph.
        origin: what the manifest shall say of the source.
        preprocess: how files become the inputs.
        batch: samples per run; free where not given.
        files: what texts are read with, by name; all in one folder.
    """
    model = build()
    inputs = tuple(replace(spec, preprocess=preprocess.get(spec.name)) for spec in g.specs(model.graph.inputs))
    folder = next(iter(files.values())).parent if files else Path()
    return Captured(
        model=model,
        inputs=inputs,
        outputs=g.specs(model.graph.outputs),
        origin=origin,
        reference=lambda feeds: _run(build(), feeds),
        example=example_inputs(inputs, folder, batch=batch or 2),
        files=dict(files or {}),
    )


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph on stock onnxruntime."""
    import onnxruntime

    with TemporaryDirectory(prefix="edgetok-") as folder:
        write_model(model, Path(folder))
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))
