"""A process that holds one model and runs it when told: `python -m edgetok.runtimes.worker JOB.json`.

Latency is measured in a process of its own, so that nothing else in it takes time or memory. It answers on its standard
output, one JSON document per line; `edgetok.worker.Worker` is the other end.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetok.errors import EdgetokError
from edgetok.model import TensorSpec
from edgetok.parts import Part
from edgetok.runtimes import Runtime, load
from edgetok.samples import from_bytes, to_bytes
from edgetok.timing import measure, sample, sample_steps

Reply = Callable[[dict[str, Any]], None]


def main() -> None:
    """Load the model of the job, then obey until the standard input ends."""
    from safetensors.numpy import load_file

    reply = _take_stdout()
    try:
        job = json.loads(Path(sys.argv[1]).read_text())
        memory_before = peak_memory()
        inputs = [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in job["inputs"]]
        with load(job["runtime"])(Path(job["model"]), inputs, threads=job["threads"]) as runtime:
            feeds = load_file(job["feeds"])
            told = runtime.describe() | {"memory_before": memory_before, "on_card": runtime.on_card}
            reply({"done": told})
            for line in sys.stdin:
                reply({"done": _obey(runtime, feeds, json.loads(line), reply)})
    except EdgetokError as error:
        reply({"error": type(error).__name__, "message": str(error)})
    except KeyboardInterrupt:
        sys.exit(130)


def _obey(runtime: Runtime, feeds: dict[str, Any], order: dict[str, Any], reply: Reply) -> Any:
    match order.pop("do"):
        case "measure":
            told = 0.0

            def progress(what: str, done: float) -> None:
                nonlocal told
                if time.monotonic() - told > 0.2:
                    told = time.monotonic()
                    reply({"doing": what, "share": done})

            return asdict(measure(runtime.prepare(feeds), progress=progress, **order))
        case "run":
            given = from_bytes(Path(order["feeds"]).read_bytes())
            return Path(order["outputs"]).write_bytes(to_bytes(runtime.run(given)))
        case "sample":
            return sample(runtime.prepare(feeds), order["runs"])
        case "parts":
            steps = runtime.steps(feeds)
            sample_steps(steps, order["warm_up"])
            times = sample_steps(steps, order["runs"])
            return [asdict(Part.of(step, taken)) for step, taken in zip(steps, times, strict=True)]
        case "profile":
            return [asdict(run) for run in runtime.profile(feeds, **order)]
        case "memory":
            return peak_memory()


def peak_memory() -> int:
    """The most bytes this process ever held.

    On Linux from /proc: getrusage's ru_maxrss is handed on through exec, and would report the parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def _take_stdout() -> Reply:
    """Keep the standard output for replies; whatever else is printed goes to the standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    return reply


if __name__ == "__main__":
    main()
