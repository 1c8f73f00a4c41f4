"""ONNX Runtime's CUDA provider: inputs lie on the card before the clock starts. Run on an H200 (docs/tensorrt.md).

With the model's sizes fixed it is recorded as a CUDA graph: an open batch would change shapes, which a graph cannot.
"""

import contextlib
import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.engine import card
from edgetok.errors import DeviceError, InputError, MissingPackage, SourceError
from edgetok.parts import Step
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    from edgetok.runtimes import Feeds

PROVIDER, DEVICE = "CUDAExecutionProvider", "cuda"


class OnnxRuntimeGpu(Runtime):
    """A bundle's model.onnx, or any other, on a card."""

    name = "onnxruntime-gpu"
    package = "onnxruntime"
    on_card = True

    def _activate(self) -> None:
        assert not callable(self.model)
        ort = _onnxruntime()
        fixed = all(isinstance(length, int) for tensor in self.inputs for length in tensor.shape)
        self._graphs = "no: the batch is open, export it with --batch"
        if fixed and DEVICE == "cuda":
            try:
                self._session, self._graphs = self._made(ort, {"enable_cuda_graph": "1"}), "yes"
            except SourceError:  # a node that CUDA has no kernel for stays on the processor
                self._session, self._graphs = self._made(ort, {}), "no: a node runs on the processor"
        else:
            self._session = self._made(ort, {})
        if self._session.get_providers()[0] != PROVIDER:  # it goes on without a word on the processor
            card.here()
            raise DeviceError(
                f"onnxruntime-gpu {ort.__version__} cannot use the card: {obstacle(Path(ort.__file__).parent)}; "
                "pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's libraries, --runtime onnxruntime runs on the "
                "processor"
            )

    def _made(self, ort: Any, settings: dict[str, str]) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        model = str(self.model) if isinstance(self.model, Path) else self.model
        try:
            return ort.InferenceSession(model, options, providers=[(PROVIDER, settings)])
        except Exception as error:  # each of onnxruntime's errors derives from Exception directly
            raise SourceError(f"onnxruntime-gpu {ort.__version__} cannot load the model: {_reason(error)}") from error

    def _describe(self) -> dict[str, str]:
        return {"version": _onnxruntime().__version__, "provider": PROVIDER, "CUDA graphs": self._graphs}

    def _bound(self, feeds: "Feeds") -> tuple[Any, dict[str, Any], list[str]]:
        """A binding whose inputs and outputs lie on the card; the inputs' values, and the outputs' names."""
        ort = _onnxruntime()
        binding, outputs = self._session.io_binding(), [output.name for output in self._session.get_outputs()]
        held = {name: ort.OrtValue.ortvalue_from_numpy(array, DEVICE, 0) for name, array in feeds.items()}
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, DEVICE)
        return binding, held, outputs

    def _prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        binding, _, outputs = self._bound(feeds)

        def run() -> "Feeds":
            try:
                self._session.run_with_iobinding(binding)
                return dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))
            except Exception as error:
                raise InputError(f"onnxruntime-gpu stopped on these inputs: {_reason(error)}") from error

        return run

    def _run(self, feeds: "Feeds") -> "Feeds":
        return self._prepare(feeds)()

    def _steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        """By the host's clock: each step waits for the card. Launches are the device's here."""
        binding, held, _ = self._bound(feeds)

        def copy_in() -> None:
            for name, array in feeds.items():
                held[name].update_inplace(array)  # in place: a CUDA graph reads where it was recorded
            binding.synchronize_inputs()

        def compute() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return (
            Step("copy in", "copy", copy_in),
            Step("launch and compute", "device", compute),
            Step("copy out", "copy", binding.copy_outputs_to_cpu),
        )

    def _close(self) -> None:
        del self._session


def _onnxruntime() -> Any:
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        if PROVIDER in onnxruntime.get_available_providers():
            onnxruntime.set_default_logger_severity(4)  # what it finds missing is raised, in words of ours
            with contextlib.redirect_stdout(None):  # it prints what is not there
                onnxruntime.preload_dlls()  # CUDA's libraries from their wheels, which are on no path
            return onnxruntime
    raise MissingPackage("onnxruntime-gpu", "running a model on a card by ONNX Runtime")


def obstacle(package: Path) -> str:
    """Why the CUDA provider in onnxruntime's folder cannot be loaded, as the system says; "" where it can."""
    try:
        for name, mode in (("shared", ctypes.RTLD_GLOBAL), ("cuda", ctypes.RTLD_LOCAL)):
            ctypes.CDLL(str(package / "capi" / f"libonnxruntime_providers_{name}.so"), mode)
    except OSError as error:
        return str(error)
    return ""


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
