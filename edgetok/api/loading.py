"""Open a bundle and run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, get_args

from edgetok.bundle import Bundle, open_bundle
from edgetok.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgetok.device import Device
    from edgetok.lowering import Arithmetic
    from edgetok.runtimes import Runtime

    Arrays = dict[str, np.ndarray]


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    expected_id: str | None = None,
    arithmetic: Arithmetic = "a32",
    runtime: str = "onnxruntime",
) -> Model:
    """Open and verify a bundle for a device.

    Args:
        path: the bundle's folder.
        device: a profile of devices/ that fits this machine, "cpu", or "auto": see `edgetok.machine.resolve`.
        expected_id: insist on this bundle: the first eight or more digits of its id.
        arithmetic: "a32", or "a8": what feeds weights of few bits is rounded to int8, which is faster.
        runtime: "onnxruntime", "openvino" or, with a card, "tensorrt", "tensorrt-rtx" or "onnxruntime-gpu".

    Raises:
        BundleError: it is damaged, incomplete, or not the one expected.
        DeviceError: the device is not this machine.
        UsageError: another arithmetic, a8 for a bundle without weights of few bits, or a runtime that runs no bundles.
    """
    bundle = open_bundle(Path(path), expected_id)
    check_arithmetic(bundle, arithmetic, runtime)
    return Model(bundle, resolve_device(device, runtime), arithmetic, runtime)


def check_arithmetic(bundle: Bundle, arithmetic: Arithmetic, runtime: str = "onnxruntime") -> None:
    """Make sure that a bundle can be run with it.

    Raises:
        UsageError: it cannot.
    """
    from edgetok import runtimes
    from edgetok.lowering import Arithmetic

    if arithmetic not in get_args(Arithmetic):
        raise UsageError(f"arithmetic {arithmetic!r}: accepted are {', '.join(get_args(Arithmetic))}")
    if runtimes.load(runtime).package == "torch":
        able = " and ".join(runtimes.of_files())
        raise UsageError(f"the runtime {runtime!r} runs captured PyTorch originals; bundles run on {able}")
    if arithmetic == "a8" and runtime != "onnxruntime":
        raise UsageError(f"arithmetic a8 is computed by edgetok's operators for onnxruntime, not by {runtime}: use a32")
    if arithmetic == "a8" and not bundle.manifest.weights:
        raise UsageError(
            f"{bundle.path}: arithmetic a8 is for weights of few bits, and this bundle has none: "
            "export it with --quantize, or run it with a32"
        )


class Model:
    """A bundle ready to run. Loads its graph when it first runs; a context manager, which closes it."""

    def __init__(
        self, bundle: Bundle, device: Device, arithmetic: Arithmetic = "a32", runtime: str = "onnxruntime"
    ):
        self.bundle, self.device, self.arithmetic, self.runtime = bundle, device, arithmetic, runtime
        self._runtime: Runtime | None = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Run on arrays, by input name.

        Raises:
            InputError: they do not fit.
        """
        if self._runtime is None:
            from edgetok import lowering, runtimes

            graph = lowering.for_runtime(self.bundle, self.runtime, self.arithmetic, self.device)
            runtime = runtimes.load(self.runtime)(graph, self.bundle.manifest.inputs)
            self._runtime = runtime.__enter__()
        return self._runtime.run(dict(feeds))

    def run_files(self, files: Sequence[str]) -> Arrays:
        """Run on pictures, recordings, texts or .npz files, one sample each."""
        return self.run(self.bundle.load(files))

    def check(self) -> dict[str, float]:
        """Run the bundle's samples and hold the outputs to those it promises.

        Returns:
            For each output how far off it is: see `edgetok.promise.check_promised`.

        Raises:
            BundleError: an output is off by more than is accepted.
        """
        from edgetok.promise import check_promised

        return check_promised(self.bundle, self.run(self.bundle.samples("inputs")), self.arithmetic)

    def close(self) -> None:
        """Give the runtime's memory back."""
        if self._runtime is not None:
            self._runtime.__exit__()
            self._runtime = None


def resolve_device(name: str, runtime: str = "onnxruntime") -> Device:
    """The profile of a device, which must fit this machine; "cpu" and "auto" are whichever does."""
    from edgetok import devices
    from edgetok.machine import resolve

    return resolve(name, devices.load_all(), runtime=runtime)
