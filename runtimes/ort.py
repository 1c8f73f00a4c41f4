"""ONNX Runtime on the CPU."""

import ctypes
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok import native
from edgetok.errors import InputError, MissingPackage, SourceError
from edgetok.layers import NodeTime, ProfiledRun, inlined
from edgetok.parts import Step
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    import onnxruntime

    from edgetok.runtimes import Feeds

NODE = "_kernel_time"  # the profiler's suffix of a node's event


class OnnxRuntime(Runtime):
    """A bundle's model.onnx, or any other, on ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    package = "onnxruntime"

    def _activate(self) -> None:
        assert not callable(self.model)
        self._session = session(self.model, threads=self.threads, plain=self.plain)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _describe(self) -> dict[str, str]:
        return {"version": _onnxruntime().__version__, "provider": self._session.get_providers()[0]}

    def _run(self, feeds: "Feeds") -> "Feeds":
        try:
            return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        except Exception as error:  # a token id beyond the vocabulary, say: only the model itself can tell
            raise InputError(f"onnxruntime stopped on these inputs: {_reason(error)}") from error

    def _close(self) -> None:
        del self._session

    def _steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        """Through IO binding, which separates what `run` of a session does in one call."""
        binding = self._session.io_binding()

        def feed() -> None:
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name in self._outputs:
                binding.bind_output(name)

        return (
            Step("feed", "host", feed),
            Step("compute", "host", lambda: self._session.run_with_iobinding(binding)),
            Step("hand the outputs out", "host", binding.copy_outputs_to_cpu),
        )

    def _profile(self, feeds: "Feeds", warm_up: int, runs: int) -> list[ProfiledRun]:
        assert isinstance(self.model, Path)
        with TemporaryDirectory() as folder:
            own = set() if self.plain or native.library() is None else native.IN_PLACE
            profiled = session(
                inlined(self.model, own), threads=self.threads, weights=self.model.parent, log=Path(folder),
                plain=self.plain,
            )  # fmt: skip
            for _ in range(warm_up + runs):
                profiled.run(None, feeds)
            events = json.loads(Path(profiled.end_profiling()).read_text())
        return _runs(events)[warm_up:]


def session(
    model: Path | bytes,
    *,
    threads: int | None = None,
    weights: Path | None = None,
    log: Path | None = None,
    plain: bool = False,
) -> "onnxruntime.InferenceSession":
    """The one place where sessions are made. They know the C++ operators where these are built.

    ONNX Runtime prefers an operator of that name to the function that the graph carries.

    Args:
        model: a file, or the bytes of one.
        threads: of one run; None lets ONNX Runtime take every core.
        weights: the folder of external data, for a model given as bytes.
        log: a folder for the profiler's log; None leaves the profiler off.
        plain: whether the operators are left out.

    Raises:
        MissingPackage: onnxruntime is not installed.
        SourceError: it cannot load the model.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the rest is noise on the user's terminal
    options.intra_op_num_threads = threads or 0
    # Threads spin during a run and stop at its end. ViT-S/16 on two cores: 41 ms, as with free spinning, against 44 ms
    # without any; with four sessions alive still 42 ms, where free spinning took 74 ms and more.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    if log is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(log / "profile")
    if not plain and (library := native.library()) is not None:
        options.register_custom_ops_library(str(library))
    try:
        made = ort.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # each of onnxruntime's errors derives from Exception directly
        what = model.name if isinstance(model, Path) else "the model"
        raise SourceError(f"onnxruntime {ort.__version__} cannot load {what}: {_reason(error)}") from error
    _give_back()
    return made


def _give_back() -> None:
    """Let glibc return what loading freed: folding keeps every step of a matrix of few bits until all are folded.

    dinov2-style-s14 in nvfp4 without the C++ operators: 135 MB resident instead of 584; in fp32 110 instead of 181.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # not in musl
        libc.malloc_trim(0)


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackage("onnxruntime", "running a model on the CPU") from None
    return onnxruntime


def _runs(events: list[dict[str, Any]]) -> list[ProfiledRun]:
    """Group the profiler's events by run; a run's own event is written after those of its nodes."""
    runs, nodes = [], []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(NODE):
            name, op = event["name"].removesuffix(NODE), event["args"]["op_name"]
            nodes.append(NodeTime(name, op, event["ts"], event["dur"]))
        elif event["name"] == "model_run":
            runs.append(ProfiledRun(event["ts"], event["dur"], tuple(sorted(nodes, key=lambda n: n.start))))
            nodes = []
    return runs
