"""What runs on the device before anything is installed there: this file is sent as text to its Python.

Standard library of Python 3.10 only, nothing of edgetok. A call does one thing: it reads one request from standard
input, a line of JSON, with bytes behind it where files are sent, and answers in lines of JSON, the last of which has
"done" or "error". Every request may be repeated: when a connection drops, it is opened again and asked again.

    ~/.cache/edgetok/blobs/SHA256        files that were sent, each once, whoever needs it
    ~/.cache/edgetok/jobs/ID/            one run: its bundle, inputs, outputs; removed when it was brought back
    ~/.local/share/edgetok/envs/NAME/    a virtual environment that sees the system's packages: edgetok and its needs
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetok"
SHARE = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "edgetok"
BLOBS, JOBS, ENVS = CACHE / "blobs", CACHE / "jobs", SHARE / "envs"
UNUSED = 30 * 86400  # seconds until a file that nobody asked for again goes
ABANDONED = 600  # seconds without a sign of the one who asked until a run is ended and removed
FULL = "the disk is full"
ONE_OF = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")  # they unpack into one folder
KEPT = ("numpy", *ONE_OF)  # the device's own are never replaced or shadowed
LISTING = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"

Request = dict[str, Any]


class Failure(Exception):
    """What the other side shall be told: `kind` for programs, the message for people."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def say(**fields: Any) -> None:
    """One line to the other side."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def probe(request: Request) -> Request:
    """What the machine is, and which environments there are."""
    made = sorted(path.parent.name for path in ENVS.glob("*/ready"))
    told = {"uid": os.geteuid(), "machine": platform.machine(), "python": platform.python_version()}
    return {**told, "environments": made}


def have(request: Request) -> Request:
    """Which of the files are not here yet."""
    missing = [digest for digest, size in request["blobs"] if not _is_there(digest, size)]
    return {"missing": missing, "free": _free()}


def put(request: Request) -> Request:
    """Store a file, whose bytes follow the request."""
    digest, size, got = request["digest"], request["size"], hashlib.sha256()
    BLOBS.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # another one tidies up, too
        for blob in BLOBS.iterdir():
            if time.time() - blob.stat().st_mtime > UNUSED:
                blob.unlink()
    place = BLOBS / f".{digest}.{os.getpid()}"
    try:
        with place.open("wb") as file:
            while size and (chunk := sys.stdin.buffer.read(min(size, 1 << 20))):
                got.update(chunk)
                file.write(chunk)
                size -= len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size or got.hexdigest() != digest:
            raise Failure("damaged", f"a file arrived damaged: sha256 {got.hexdigest()[:12]}, not {digest[:12]}")
        os.replace(place, BLOBS / digest)
    finally:
        place.unlink(missing_ok=True)
    return {}


def install(request: Request) -> Request:
    """Make the environment, or find it made."""
    if os.geteuid() == 0:
        raise Failure("root", "nothing is installed as root")
    place = ENVS / request["name"]
    ready = place / "ready"
    ENVS.mkdir(parents=True, exist_ok=True)
    lock = ENVS / f"{request['name']}.lock"
    if not _is_free(lock):
        say(progress="waiting for another installation there")
    with _locked(lock):
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
        _link(BLOBS / digest, wheels / _plain(name))
    asked = subprocess.run([python, "-c", LISTING], capture_output=True, text=True, env=_environment(), check=False)
    present = {name: version for name, version in json.loads(asked.stdout or "{}").items() if name in KEPT}
    (place / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in present.items()))
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    own = str(wheels / _plain(request["wheel"]))
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
    with subprocess.Popen(command, **streams, text=True, env=_environment()) as process:
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
        if any("No space left" in line or "Disk quota" in line for line in lines) or _out_of_space():
            raise Failure("full", FULL)
        told = " ".join([line for line in lines if line.startswith("ERROR")][:3] or lines[-3:])
        raise Failure(what, f"{what} failed: {told}" + (f"; {remedy}" if remedy else ""))


def _environment() -> dict[str, str]:
    """The environment for the device's Python: what would put packages elsewhere, or before ours, is left out."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PIP_USER": "0"}


def start(request: Request) -> Request:
    """Begin a run that outlives the connection."""
    job = JOBS / _plain(request["job"])
    if (job / "begun").exists() or (job.is_dir() and not _is_free(job / "lock")):
        return {}
    _sweep_jobs()
    shutil.rmtree(job, ignore_errors=True)
    for path, digest in request["files"].items():
        place = job / path
        if ".." in Path(path).parts or not place.is_relative_to(job):
            raise Failure("refused", f"{path!r} leads out of the run's folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(BLOBS / digest, place)
    (job / "out").mkdir(parents=True)
    (job / "lease").touch()
    program = [str(ENVS / _plain(request["environment"]) / "bin/edgetok"), *request["arguments"]]
    if os.fork() == 0:
        _become_supervisor(job, program)
    late = _later(10)
    while not (job / "begun").exists():
        if late():
            raise Failure("lost", "the run could not be begun")
        time.sleep(0.02)
    return {}


def _become_supervisor(job: Path, program: list[str]) -> NoReturn:
    """Leave the session, run the program, write how it ended; end it when nobody asks for it any more."""
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    try:
        with _locked(job / "lock"):
            _supervise(job, program)
    finally:
        os._exit(0)


def _supervise(job: Path, program: list[str]) -> None:
    environment = _environment() | {"EDGETOK_PROGRESS": "json", "PYTHONUTF8": "1"}
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


def follow(request: Request) -> Request:
    """Pass on what a run says until it ends; whoever listens sends a byte for each line, which keeps the run alive."""
    job, at = JOBS / _plain(request["job"]), request["at"]
    if not job.is_dir():
        raise Failure("lost", "the run's folder is gone")
    while True:
        ended = (job / "ended").exists()  # looked at first: what was said before the end is passed on
        gone = not ended and _is_free(job / "lock")
        with (job / "stderr").open("rb") as file:
            file.seek(at)
            text = file.read(1 << 16)
        whole = text if ended or len(text) == 1 << 16 else text[: text.rfind(b"\n") + 1]
        at += len(whole)
        if ended and not text:
            break
        if gone and not (job / "ended").exists():
            raise _out_of_space() or Failure("lost", "the run was killed there")
        say(at=at, lines=whole.decode(errors="replace").splitlines())
        if not select.select([0], [], [], 30)[0] or not os.read(0, 1):
            raise Failure("unheard", "nobody listens")
        os.utime(job / "lease")
        if not whole:
            time.sleep(0.5)
    answer = (job / "stdout").read_text(encoding="utf-8", errors="replace")
    if not answer.rstrip().endswith("}") and (full := _out_of_space()):
        raise full
    return {"code": int((job / "ended").read_text()), "answer": answer}


def collect(request: Request) -> Request:
    """Send what a run has written: a line about each file, then its bytes."""
    out = JOBS / _plain(request["job"]) / "out"
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
            say(file=file.relative_to(out).as_posix(), size=stream.tell(), sha256=digest.hexdigest())
            stream.seek(0)
            shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return {}


def remove(request: Request) -> Request:
    """End a run if it goes on, and remove its folder."""
    job = JOBS / _plain(request["job"])
    if job.is_dir():
        (job / "stop").touch()
        late = _later(15)
        while not _is_free(job / "lock") and not late():
            time.sleep(0.1)
        _end_orphan(job)
        shutil.rmtree(job)
    return {}


def _end(group: int) -> None:
    """End a process group: politely, and three seconds later for certain."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        late = _later(3)
        while not late():
            os.killpg(group, 0)
            time.sleep(0.1)
            with suppress(ChildProcessError):
                os.waitpid(group, os.WNOHANG)
        os.killpg(group, signal.SIGKILL)


def _end_orphan(job: Path) -> None:
    """End a run whose supervisor was killed, if the process with its number still is the one that was begun."""
    with suppress(OSError, ValueError):
        pid = int((job / "begun").read_text())
        if Path(f"/proc/{pid}/cwd").resolve() == job.resolve():
            _end(pid)


def _sweep_jobs() -> None:
    """Remove what runs have left that nobody brought back: their supervisor has ended, an hour ago or more."""
    for job in JOBS.glob("*"):
        with suppress(OSError):
            if time.time() - (job / "lease").stat().st_mtime > 3600 and _is_free(job / "lock"):
                _end_orphan(job)
                shutil.rmtree(job)


def _is_there(digest: str, size: int) -> bool:
    blob = BLOBS / digest
    if found := blob.is_file() and blob.stat().st_size == size:
        os.utime(blob)  # used today
    return found


def _free() -> int:
    CACHE.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(CACHE).free


def _link(blob: Path, place: Path) -> None:
    try:
        os.link(blob, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(blob, place)


def _out_of_space() -> Failure | None:
    """What ends a run, or cuts its answer off, where no more bytes or no more files can be written."""
    disk = os.statvfs(CACHE)
    full = _free() < 1 << 20 or (disk.f_files > 0 and disk.f_favail < 10)
    return Failure("full", FULL) if full else None


def _plain(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise Failure("refused", f"{name!r} is no plain name")
    return name


def _is_free(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def main() -> None:
    """Do what the request asks for."""
    known = (probe, have, put, install, start, follow, collect, remove)
    request = json.loads(sys.stdin.buffer.readline())
    try:
        (do,) = (each for each in known if each.__name__ == request["do"])
        say(done=do(request))
    except Failure as failure:
        say(error=str(failure), kind=failure.kind)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        say(error=FULL if full else str(error), kind="full" if full else "system", free=_free())


if __name__ == "__main__":
    main()
