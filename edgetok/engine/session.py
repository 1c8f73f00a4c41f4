"""An engine on the card of this machine, through Polygraphy's runner. Written without a card, and never run on one.

The inputs lie on the card before what is timed begins; outputs are copied back by every run, and the times hold that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.engine import card
from edgetok.engine.build import build
from edgetok.engine.events import Stopwatch
from edgetok.engine.order import Builder, builder_version, order
from edgetok.errors import BuildError, InputError, UsageError
from edgetok.parts import Step

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    from edgetok.model import TensorSpec

BATCHES = 1, 1, 32  # the least, the usual, the largest that an engine takes where the graph leaves the batch open


class Session:
    """An engine ready to run; live between `__enter__` and `__exit__`.

    Args:
        model: the lowered ONNX file.
        builder: "tensorrt" or "tensorrt-rtx".
        inputs: of the graph.
    """

    def __init__(self, model: Path, builder: Builder, inputs: Sequence[TensorSpec]):
        self.model, self.builder, self.inputs = model, builder, inputs

    def __enter__(self) -> Self:
        """Build the engine, or find it, and load it.

        Raises:
            MissingPackage: the runtime or Polygraphy is not installed.
            DeviceError: there is no card.
            Refusal, BuildError: no engine can be built.
        """
        builder_version(self.builder)
        found = card.here()
        measured_on = found.name if self.builder == "tensorrt" else ""
        asked = order(self.model, self.builder, found.capability, self.inputs, batch=BATCHES, card=measured_on)
        engine = build(asked)
        self._runner = _runner(engine, self.builder)
        self._runner.activate()
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.deactivate()

    def upload(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """Copy the inputs to the card, where they stay.

        Raises:
            InputError: a larger batch than the engine was built for.
        """
        import numpy as np
        from polygraphy.cuda import DeviceArray
        from polygraphy.datatype import DataType

        for tensor in self.inputs:
            batch = feeds[tensor.name].shape[0] if tensor.shape else 1
            if tensor.shape and isinstance(tensor.shape[0], str) and batch > BATCHES[2]:
                raise InputError(f"input {tensor.name!r} has a batch of {batch}: engines take up to {BATCHES[2]}")
        uploaded = {}
        for name, array in feeds.items():
            held = DeviceArray(array.shape, DataType.from_dtype(array.dtype))
            uploaded[name] = held.copy_from(np.ascontiguousarray(array))
        return uploaded

    def run(self, uploaded: dict[str, Any]) -> dict[str, np.ndarray]:
        """Run on what was uploaded; the outputs are copied back."""
        outputs: dict[str, np.ndarray] = self._runner.infer(uploaded, check_inputs=False)
        return {name: array.copy() for name, array in outputs.items()}  # the runner writes into the same again

    def steps(self, feeds: dict[str, np.ndarray]) -> tuple[Step, ...]:
        """One run in steps: what the card computes by events of its own clock, all else by the host's."""
        import numpy as np

        held, given = self.upload(feeds), {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        left = self._runner.infer(held, check_inputs=False, copy_outputs_to_host=False)  # sets shapes and addresses
        runner, watch = self._runner, Stopwatch(self._runner.stream.ptr)

        def launch() -> None:
            watch.start()
            if not runner.context.execute_async_v3(runner.stream.ptr):
                raise InputError(f"{self.builder} stopped on these inputs: its messages above say why")
            watch.stop()

        return (
            Step("copy in", "copy", lambda: [held[name].copy_from(array) for name, array in given.items()]),
            Step("launch", "host", launch),
            Step("compute", "device", watch.milliseconds),
            Step("copy out", "copy", lambda: [view.numpy() for view in left.values()]),
        )


def _runner(engine: Path, builder: Builder) -> Any:
    rtx = builder == "tensorrt-rtx"
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(rtx))  # Polygraphy reads it once
    from polygraphy import config

    if rtx != config.USE_TENSORRT_RTX:
        raise UsageError("Polygraphy serves TensorRT or TensorRT-RTX in one process, not both: start another process")
    from polygraphy.backend.trt import TrtRunner, engine_from_bytes
    from polygraphy.exception import PolygraphyException

    try:
        loaded = engine_from_bytes(engine.read_bytes())
    except PolygraphyException as error:
        called = f"{builder} {builder_version(builder)}"
        raise BuildError(f"{called} does not load {engine}: delete its folder, and it is built anew") from error
    return TrtRunner(_with_graphs(loaded) if rtx else loaded)


def _with_graphs(engine: Any) -> Any:
    """A context that TensorRT-RTX records as a CUDA graph by itself; TensorRT has no such setting."""
    import tensorrt_rtx as trt

    settings = engine.create_runtime_config()
    settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(settings)
