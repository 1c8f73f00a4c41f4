"""One side of a measurement, in a process of its own.

with Worker(side) as worker:
    timing = worker.measure(percentile=0.9)
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok import errors
from edgetok.errors import EdgetokError
from edgetok.layers import NodeTime, ProfiledRun
from edgetok.model import TensorSpec
from edgetok.parts import Part
from edgetok.statistics import Quantile
from edgetok.timing import Progress, Timing, WarmUp

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class Side:
    """What one worker runs.

    Attributes:
        label: what reports call it.
        model: the ONNX file.
        inputs: what it takes.
        feeds: what it is fed, the same in every run.
        runtime: the name of the runtime.
        threads: of one run; None leaves it to the runtime.
        tokens: how many tokens enter and leave each block, where that is known.
        mean_tokens: whether these are means over a bundle's samples.
    """

    label: str
    model: Path
    inputs: tuple[TensorSpec, ...]
    feeds: "dict[str, np.ndarray]"
    runtime: str = "onnxruntime"
    threads: int | None = None
    tokens: tuple[tuple[int, int], ...] | None = None
    mean_tokens: bool = False

    @property
    def batch(self) -> int:
        """How many samples one run takes."""
        return int(next(iter(self.feeds.values())).shape[0])


class Worker:
    """A process that holds one side's model. It is idle, and takes no processor time, unless it is told to run."""

    def __init__(self, side: Side):
        self.side = side

    def __enter__(self) -> "Self":
        self._folder = TemporaryDirectory(prefix="edgetok-")
        folder = Path(self._folder.name)
        self._log = (folder / "log").open("w+")
        # The worker finds edgetok where this process found it, installed or in a checkout.
        path = os.pathsep.join([str(Path(errors.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgetok.runtimes.worker", str(self._job(folder))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,  # Python imports from there first: not from the user's folder
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )
        try:
            self.description: dict[str, Any] = self._reply()
        except BaseException:
            self.__exit__()
            raise
        self.memory_before: int = self.description.pop("memory_before")
        self.on_card: bool = self.description.pop("on_card")
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()

    def kill(self) -> None:
        """End the process now, from any thread: whoever waits for it gets an EdgetokError."""
        self._process.kill()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def measure(self, *, progress: Progress | None = None, **limits: float) -> Timing:
        """`edgetok.timing.measure` in the worker."""
        done = self._order("measure", progress, **limits)
        return Timing(tuple(done["milliseconds"]), WarmUp(**done["warm_up"]), tuple(done["window"]))

    def run(self, feeds: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """The outputs for other feeds, of as many samples as the model takes at once."""
        from edgetok import samples

        given, got = (Path(self._folder.name) / name for name in ("given.safetensors", "got.safetensors"))
        given.write_bytes(samples.to_bytes(feeds))
        self._order("run", feeds=str(given), outputs=str(got))
        return samples.from_bytes(got.read_bytes())

    def sample(self, runs: int) -> list[float]:
        """Milliseconds of some runs in a row."""
        times: list[float] = self._order("sample", runs=runs)
        return times

    def parts(self, *, warm_up: int, runs: int) -> tuple[Part, ...]:
        """Runs taken apart: how long each of their steps takes; nothing where the runtime does not tell."""
        found = self._order("parts", warm_up=warm_up, runs=runs)
        return tuple(Part(each["name"], each["where"], Quantile(**each["milliseconds"])) for each in found)

    def profile(self, *, warm_up: int, runs: int) -> list[ProfiledRun]:
        """Runs with the runtime's profiler on."""
        return [
            ProfiledRun(run["start"], run["duration"], tuple(NodeTime(**node) for node in run["nodes"]))
            for run in self._order("profile", warm_up=warm_up, runs=runs)
        ]

    def peak_memory(self) -> int:
        """The most bytes the worker ever held."""
        return int(self._order("memory"))

    def _job(self, folder: Path) -> Path:
        import numpy as np
        from safetensors.numpy import save_file

        # safetensors writes a transposed view in the order it has in memory, under the wrong shape
        feeds = {name: np.ascontiguousarray(array) for name, array in self.side.feeds.items()}
        save_file(feeds, folder / "feeds.safetensors")
        job = {
            "runtime": self.side.runtime,
            "model": str(self.side.model.resolve()),
            "inputs": [(spec.name, spec.dtype, spec.shape) for spec in self.side.inputs],
            "feeds": str(folder / "feeds.safetensors"),
            "threads": self.side.threads,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder / "job.json"

    def _order(self, do: str, progress: Progress | None = None, **how: Any) -> Any:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"do": do, **how}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self._reply(progress)

    def _reply(self, progress: Progress | None = None) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if "done" in message:
                return message["done"]
            if "error" in message:
                raise errors.revived(message["error"], message["message"])
            if progress:
                progress(message["doing"], message["share"])
        raise self._death()

    def _death(self) -> EdgetokError:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().strip().splitlines()[-1:] or ["it left no message"]
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return EdgetokError(f"the process that ran {self.side.label} ended {how}: {last[0]}")
