"""ONNX Runtime's CUDA provider: inputs lie on the card before the clock starts. Never run on a card (docs/tensorrt.md).

With the model's sizes fixed it is recorded as a CUDA graph: an open batch would change shapes, which a graph cannot.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.errors import DeviceError, InputError, MissingPackage, SourceError
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
            raise DeviceError(
                f"onnxruntime-gpu {ort.__version__} found no card, or not the CUDA libraries that it wants: "
                "edgetok doctor says more, --runtime onnxruntime runs on the processor"
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

    def _prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        ort = _onnxruntime()
        binding, outputs = self._session.io_binding(), [output.name for output in self._session.get_outputs()]
        held = {name: ort.OrtValue.ortvalue_from_numpy(array, DEVICE, 0) for name, array in feeds.items()}
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, DEVICE)

        def run() -> "Feeds":
            try:
                self._session.run_with_iobinding(binding)
                return dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))
            except Exception as error:
                raise InputError(f"onnxruntime-gpu stopped on these inputs: {_reason(error)}") from error

        return run

    def _run(self, feeds: "Feeds") -> "Feeds":
        return self._prepare(feeds)()

    def _close(self) -> None:
        del self._session


def _onnxruntime() -> Any:
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        if PROVIDER in onnxruntime.get_available_providers():
            return onnxruntime
    raise MissingPackage("onnxruntime-gpu", "running a model on a card by ONNX Runtime")


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
