"""The virtual environment that edgetok runs in: it sees the system's packages, and never replaces the device's own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgetok.remote.agent.blobs import link
from edgetok.remote.agent.places import BLOBS, ENVS, FULL, is_free, locked, out_of_space, plain
from edgetok.remote.agent.protocol import Failure, Request, say

ONE_OF = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")  # they unpack into one folder
KEPT = ("numpy", *ONE_OF)  # the device's own are never replaced or shadowed
LISTING = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def install(request: Request) -> Request:
    """Make the environment, or find it made."""
    if os.geteuid() == 0:
        raise Failure("root", "nothing is installed as root")
    place = ENVS / request["name"]
    ready = place / "ready"
    ENVS.mkdir(parents=True, exist_ok=True)
    lock = ENVS / f"{request['name']}.lock"
    if not is_free(lock):
        say(progress="waiting for another installation there")
    with locked(lock):
        if ready.is_file():
            return {"fresh": False}
        shutil.rmtree(place, ignore_errors=True)  # what an installation that was cut off has left
        try:
            _make_environment(place, request)
            ready.write_text(request["name"], encoding="utf-8")
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return {"fresh": True}


def _make_environment(place: Path, request: Request) -> None:
    say(progress="making an environment")
    _run([sys.executable, "-m", "venv", "--system-site-packages", str(place)], "venv", "apt install python3-venv there")
    python = str(place / "bin/python")
    wheels = place / "wheels"
    wheels.mkdir()
    for name, digest in request["wheels"].items():
        link(BLOBS / digest, wheels / plain(name))
    asked = subprocess.run([python, "-c", LISTING], capture_output=True, text=True, env=variables(), check=False)
    present = {name: version for name, version in json.loads(asked.stdout or "{}").items() if name in KEPT}
    (place / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in present.items()))
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    own = str(wheels / plain(request["wheel"]))
    _run([*pip, "--no-deps", "--no-index", "--force-reinstall", own], "pip", "")
    needed = [*request["requirements"], *([] if any(name in present for name in ONE_OF) else [request["runtime"]])]
    source = ["--no-index", "--find-links", str(wheels)] if request["carried"] else []
    kept = ", ".join(f"{name} {version}" for name, version in present.items()) or "none"
    remedy = f"{request['remedy']}; packages of the device that are kept as they are: {kept}"
    _run([*pip, *source, "--constraint", str(place / "constraints.txt"), *needed], "pip", remedy)
    shutil.rmtree(wheels)
    if request["build"]:
        say(progress="building the C++ operators")
        try:
            _run([python, "-m", "edgetok.native_build"], "g++", "")
        except Failure as failure:
            say(progress=str(failure))  # edgetok does without them, more slowly, and its doctor says so


def _run(command: list[str], what: str, remedy: str) -> None:
    """Run a program of the installation; its lines are progress, its last ones the error."""
    lines: list[str] = []
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **streams, text=True, env=variables()) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines = [*lines[-30:], line.strip()]
                if line.startswith(("Collecting", "Downloading", "Installing")):
                    say(progress=line.strip()[:100])
        except BaseException:  # nobody is left to be told
            process.kill()
            raise
    if process.returncode:
        if any("No space left" in line or "Disk quota" in line for line in lines) or out_of_space():
            raise Failure("full", FULL)
        told = " ".join([line for line in lines if line.startswith("ERROR")][:3] or lines[-3:])
        raise Failure(what, f"{what} failed: {told}" + (f"; {remedy}" if remedy else ""))


def variables() -> dict[str, str]:
    """The environment for the device's Python: what would put packages elsewhere, or before ours, is left out."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PIP_USER": "0"}
