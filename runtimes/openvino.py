"""OpenVINO on the CPU, which computes in bf16 where the processor can and the graph's weights are bf16.

Its own default is bf16 for graphs in fp32 as well; here the bundle says what is rounded, and not the processor.
"""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok.errors import InputError, MissingPackage, SourceError
from edgetok.layers import NodeTime, ProfiledRun, inlined
from edgetok.parts import Step
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    from edgetok.runtimes import Feeds


class OpenVino(Runtime):
    """A bundle's model.onnx, its functions written out: OpenVINO reads none."""

    name = "openvino"
    package = "openvino"

    def _activate(self) -> None:
        assert not callable(self.model)
        self._compiled = self._compile()
        self._request = self._compiled.create_infer_request()
        self._outputs = [output.any_name for output in self._compiled.outputs]

    def _describe(self) -> dict[str, str]:
        precision = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return {"version": _version(), "provider": "CPU", "precision": precision}

    def _run(self, feeds: "Feeds") -> "Feeds":
        try:
            self._request.infer(feeds)
        except RuntimeError as error:
            raise InputError(f"OpenVINO stopped on these inputs: {_first_line(error)}") from error
        return self._copied()

    def _copied(self) -> "Feeds":
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._outputs)}

    def _close(self) -> None:
        del self._request, self._compiled

    def _profile(self, feeds: "Feeds", warm_up: int, runs: int) -> list[ProfiledRun]:
        """Nodes one behind the other: OpenVINO says how long each took, not when."""
        request = self._compile(PERF_COUNT=True).create_infer_request()
        profiled = []
        for _ in range(warm_up + runs):
            request.infer(feeds)
            now, nodes = 0.0, []
            for node in request.get_profiling_info():
                took = node.real_time.total_seconds() * 1e6
                if node.status == node.Status.EXECUTED:
                    nodes.append(NodeTime(node.node_name, node.node_type, now, took))
                    now += took
            profiled.append(ProfiledRun(0.0, max(request.latency * 1e3, now), tuple(nodes)))
        return profiled[warm_up:]

    def _steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        ov, request = _openvino(), self._request

        def feed() -> None:  # copied, as infer() does with arrays
            for name, array in feeds.items():
                request.set_tensor(name, ov.Tensor(array))

        return (
            Step("feed", "host", feed),
            Step("compute", "host", request.infer),
            Step("hand the outputs out", "host", self._copied),
        )

    def _compile(self, **properties: Any) -> Any:
        ov = _openvino()
        if self.threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self.threads
        assert not callable(self.model)
        try:
            with TemporaryDirectory(prefix="edgetok-") as folder:
                core, model = ov.Core(), _written_out(self.model, Path(folder))
                rounds = _has_bf16_weights(model) and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
                properties["INFERENCE_PRECISION_HINT"] = ov.Type.bf16 if rounds else ov.Type.f32
                return core.compile_model(core.read_model(model), "CPU", {"PERFORMANCE_HINT": "LATENCY", **properties})
        except RuntimeError as error:
            told = f"OpenVINO {_version()} cannot load {_called(self.model)}: {_first_line(error)}"
            raise SourceError(told) from error


def _written_out(model: Path | bytes, folder: Path) -> Path:
    """The model without functions in a folder, its external data beside it: OpenVINO follows no symbolic link."""
    written = folder / "model.onnx"
    if isinstance(model, bytes):
        written.write_bytes(model)
        return written
    try:
        written.write_bytes(inlined(model))
    except Exception as error:  # whatever protobuf and onnx-ir make of bytes that are no model
        raise SourceError(f"OpenVINO {_version()} cannot load {_called(model)}: {_first_line(error)}") from error
    for data in model.parent.glob(f"{model.name}.*"):
        try:
            os.link(data.resolve(), folder / data.name)
        except OSError:  # another file system
            shutil.copyfile(data, folder / data.name)
    return written


def _has_bf16_weights(model: Path) -> bool:
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in graph.initializer)


def _first_line(error: Exception) -> str:
    """What went wrong; OpenVINO's own source lines come first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from src", "Check '", "Loading input model"))]
    return (told or lines or ["no message"])[0][:300]


def _called(model: Path | bytes) -> str:
    return model.name if isinstance(model, Path) else "the model"


def _version() -> str:
    return str(_openvino().__version__).split("-")[0]


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingPackage("edgetok[openvino]", "running on OpenVINO") from None
    return openvino
