"""Builds an engine, or finds it in the cache."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgetok.cache import cache_folder, made_once
from edgetok.engine.order import Order, builder_version
from edgetok.errors import BuildError, MissingPackage, OutputError, Refusal

ENGINE = "model.engine"
TIMEOUT = 3600.0  # seconds
Tell = Callable[[str, float], None]


def build(order: Order, tell: Tell | None = None, timeout: float = TIMEOUT) -> Path:
    """The engine of an order, built now where the cache has none.

    Args:
        order: what to build.
        tell: told what is being done, and how much of it is done; first how much memory it may take.
        timeout: seconds after which a build is given up.

    Returns:
        The engine's file, in the cache.

    Raises:
        MissingPackage: the builder or Polygraphy is not installed.
        Refusal: the parser does not take the graph; with its first reason and the node.
        BuildError: the builder failed, crashed or took too long, or built something else than was asked for.
        OutputError: the cache cannot be written.
    """
    if find_spec("polygraphy") is None:
        raise MissingPackage(f"edgetok[{order.builder}]", f"building a {order.builder} engine")
    say = tell or (lambda *_: None)
    folder = made_once(
        cache_folder() / "engines" / f"{order.builder}-{builder_version(order.builder)}" / order.key()[:32],
        lambda folder: _build(order, folder, say, timeout),
        lambda: say("waiting for another process that builds this engine", 0.0),
    )
    return folder / ENGINE


def _build(order: Order, folder: Path, say: Tell, timeout: float) -> None:
    """Into an empty folder: the engine, and what it was built from."""
    import psutil

    say(f"building: may take {order.memory() / 1e9:.1f} GB of {psutil.virtual_memory().available / 1e9:.1f}", 0.0)
    answer = _in_a_process(order, folder / ENGINE, say, timeout)
    called = f"{order.builder} {builder_version(order.builder)}"
    if "unwritten" in answer:
        told = f"the engine cannot be written to the cache, {folder.parent}: {answer['unwritten']}"
        raise OutputError(f"{told}; make room there, or set EDGETOK_CACHE to another folder")
    if "unparsed" in answer:
        first, *more = answer["unparsed"] or [{"node": "", "operator": "the graph", "reason": "no reason given"}]
        others = f", and {len(more)} more" if more else ""
        raise Refusal(
            f"{called} does not take {first['operator']}: {first['reason'].strip()}{others}",
            node=first["node"] or None,
            way_out="edgetok lint --for DEVICE says what to write instead",
        )
    if "unbuilt" in answer:
        why = answer["unbuilt"][0].strip()
        raise BuildError(f"{called} builds no engine of {order.model.name} for {order.capability}: {why}")
    if answer["done"]["layers"] is not None:
        from edgetok.engine.layers import check

        check(answer["done"]["layers"], order.model)
        (folder / "layers.json").write_text(json.dumps(answer["done"]["layers"], indent=1), encoding="utf-8")


def _in_a_process(order: Order, engine: Path, say: Tell, timeout: float) -> dict[str, Any]:
    """What the process that builds says in the end."""
    called = f"the process that builds {order.model.name} by {order.builder}"
    with TemporaryDirectory(prefix="edgetok-") as name:
        job = Path(name) / "order.json"
        timings = cache_folder() / "engines" / f"timings-{order.capability}-{builder_version(order.builder)}.cache"
        job.write_text(
            json.dumps({**asdict(order), "engine": engine, "timings": timings}, default=str), encoding="utf-8"
        )
        log = (Path(name) / "log").open("w+", errors="replace")
        path = os.pathsep.join(filter(None, sys.path))  # the same packages, installed or in a checkout
        process = subprocess.Popen(
            [sys.executable, "-m", "edgetok.engine.builder", str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, give_up)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer: dict[str, Any] = json.loads(line)
                if "doing" not in answer:
                    return answer
                say(answer["doing"], answer["share"])
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdin.close()  # type: ignore[union-attr]
            process.stdout.close()  # type: ignore[union-attr]
            log.seek(0)
            last = (log.read().strip().splitlines() or ["it said nothing"])[-1]
            log.close()
    if late.is_set():
        raise BuildError(f"{called} was not done after {timeout:g} s: give it more time, or a smaller model")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    cause = "; the system does so where memory runs out" if code == -signal.SIGKILL else ""
    raise BuildError(f"{called} {how}: {last}{cause}")
