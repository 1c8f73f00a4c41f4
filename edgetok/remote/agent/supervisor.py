"""The process that stays with a run when the connection is gone, and ends what nobody wants any more."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from edgetok.remote.agent.environment import variables
from edgetok.remote.agent.places import locked

ABANDONED = 600  # seconds without a sign of the one who asked until a run is ended and removed


def become_supervisor(job: Path, program: list[str]) -> NoReturn:
    """Leave the session, run the program, write how it ended; end it when nobody asks for it any more."""
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    try:
        with locked(job / "lock"):
            _supervise(job, program)
    finally:
        os._exit(0)


def _supervise(job: Path, program: list[str]) -> None:
    environment = variables() | {"EDGETOK_PROGRESS": "json", "PYTHONUTF8": "1"}
    with (job / "stdout").open("wb") as out, (job / "stderr").open("wb") as err:
        process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=job, env=environment, start_new_session=True
        )
    try:
        (job / "begun").write_text(str(process.pid))
        _watch(job, process)
        (job / ".ended").write_text(str(process.returncode))
        os.replace(job / ".ended", job / "ended")
    except OSError:  # the disk is full, or the folder gone: nothing can be told, and nothing may go on
        _end(process.pid)


def _watch(job: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end, and bring it about where the run is not wanted any more."""
    sign, since = 0, time.monotonic()  # the clock of a board without a battery may jump by years
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        with suppress(OSError):
            if (latest := (job / "lease").stat().st_mtime_ns) != sign:
                sign, since = latest, time.monotonic()
        abandoned = time.monotonic() - since > ABANDONED or not job.is_dir()
        if abandoned or (job / "stop").exists():
            _end(process.pid)
            process.wait()
            if abandoned:
                shutil.rmtree(job, ignore_errors=True)


def end_orphan(job: Path) -> None:
    """End a run whose supervisor was killed, if the process with its number still is the one that was begun."""
    with suppress(OSError, ValueError):
        pid = int((job / "begun").read_text())
        if Path(f"/proc/{pid}/cwd").resolve() == job.resolve():
            _end(pid)


def _end(group: int) -> None:
    """End a process group: politely, and three seconds later for certain."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        late = later(3)
        while not late():
            os.killpg(group, 0)
            time.sleep(0.1)
            with suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
        os.killpg(group, signal.SIGKILL)


def later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
