"""The process that builds one engine: `python -m edgetok.engine.builder ORDER.json`.

What NVIDIA's libraries do not like can crash them: TensorRT-RTX 1.7.1 aborts on a plugin node (measured). It answers
on its standard output, one JSON document per line, and ends when its standard input does, as when its parent is killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgetok.engine.order import FLAGS, plugins_in

Reply = Callable[[dict[str, Any]], None]
OFTEN = 0.2  # seconds between two words on progress


def main() -> None:
    """Build the order's engine into its file, and say how it went."""
    reply = _take_stdout()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    reply(_built(job, reply))


def _built(job: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Parse, build, write; what Polygraphy does here is the configuration, and the timing cache with its lock."""
    rtx = job["builder"] == "tensorrt-rtx"
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(rtx))  # before its first import
    from polygraphy.backend.trt import CreateConfig, Profile, engine_bytes_from_network
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    trt = _tensorrt(rtx)
    errors: list[str] = []
    log = _log(trt, errors)
    reply({"doing": "parsing", "share": 0.0})
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    if not rtx:
        _register_plugins(trt, job)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(job["model"]):
        return {"unparsed": [_told(parser.get_error(at)) for at in range(parser.num_errors)]}
    profile = Profile()
    for name, shapes in job["shapes"].items():
        profile.add(name, shapes["least"], shapes["usual"], shapes["most"])
    common = {
        "profiles": [profile],
        "progress_monitor": _monitor(trt, reply),
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
    }
    if rtx:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        major, minor = job["capability"].split(".")
        config = CreateConfigRTX(compute_capabilities=[(int(major), int(minor))], **common)
        timings = None
    else:
        timings = job["timings"]
        config = CreateConfig(load_timing_cache=timings if Path(timings).is_file() else None, **common)
    try:
        engine = engine_bytes_from_network((builder, network), config=config, save_timing_cache=timings)
    except PolygraphyException as error:
        return {"unbuilt": errors or [str(error)]}
    try:
        Path(job["engine"]).write_bytes(engine)
    except OSError as error:  # said here: NVIDIA's objects abort the process while an exception ends it
        return {"unwritten": error.strerror}
    return {"done": {"layers": None if rtx else _layers(trt, log, job)}}


def _tensorrt(rtx: bool) -> Any:
    if rtx:
        import tensorrt_rtx as trt
    else:
        import tensorrt as trt
    return trt


def _network_flags(trt: Any) -> int:
    """Each of FLAGS: what this version has none of (EXPLICIT_BATCH from TensorRT 10 on) is on by itself."""
    known = trt.NetworkDefinitionCreationFlag.__members__
    return sum(1 << int(known[name]) for name in FLAGS if name in known)


def _register_plugins(trt: Any, job: dict[str, Any]) -> None:
    """Make plugin nodes known to the parser: by the decorators, or by the library that was built for this machine."""
    import onnx

    found = plugins_in(onnx.load(job["model"], load_external_data=False))
    if found and job["library"]:
        trt.get_plugin_registry().load_library(job["library"])
    elif found:
        from edgetok.tensorrt.decorator import register

        for operator, (inputs, outputs) in found.items():
            register(operator, inputs, outputs)


def _layers(trt: Any, log: Any, job: dict[str, Any]) -> list[dict[str, Any]]:
    """What the engine's inspector says of each layer, at the usual shapes: without them it has no types to say."""
    runtime = trt.Runtime(log)
    made = runtime.deserialize_cuda_engine(Path(job["engine"]).read_bytes())
    inspector, context = made.create_engine_inspector(), made.create_execution_context()
    for name, shapes in job["shapes"].items():
        context.set_input_shape(name, tuple(shapes["usual"]))
    inspector.execution_context = context
    told = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers: list[dict[str, Any]] = json.loads(told)["Layers"]
    return layers


def _told(error: Any) -> dict[str, str]:
    return {"node": error.node_name(), "operator": error.node_operator(), "reason": error.desc()}


def _log(trt: Any, errors: list[str]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                errors.append(message)

    return Log()


def _monitor(trt: Any, reply: Reply) -> Any:
    """Turns the phases within phases of a build into one share that is done."""
    phases: dict[str, list[Any]] = {}  # by name: its parent, its steps, how many are done
    told = 0.0

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases[phase_name] = [parent_phase, max(num_steps, 1), 0]
            say(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in phases:
                phases[phase_name][2] = step + 1
                say(phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            phases.pop(phase_name, None)

    def say(phase: str) -> None:
        nonlocal told
        if time.monotonic() - told > OFTEN:
            told = time.monotonic()
            reply({"doing": phase, "share": min(share(phase), 1.0)})

    def share(phase: str) -> float:
        """Of the whole: each phase fills one step of its parent."""
        done = 0.0
        at: str | None = phase
        while at in phases:
            parent, steps, finished = phases[at]
            done, at = (finished + done) / steps, parent
        return done

    return Monitor()


def _take_stdout() -> Reply:
    """Keep the standard output for replies; whatever else is printed goes to the standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=channel)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
