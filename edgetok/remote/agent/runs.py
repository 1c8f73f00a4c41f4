"""Runs that outlive the connection: begun, followed, brought back, removed."""

import hashlib
import os
import select
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from edgetok.remote.agent.blobs import link
from edgetok.remote.agent.places import BLOBS, ENVS, JOBS, is_free, out_of_space, plain
from edgetok.remote.agent.protocol import Failure, Request, say
from edgetok.remote.agent.supervisor import become_supervisor, end_orphan, later


def start(request: Request) -> Request:
    """Begin a run that outlives the connection."""
    job = JOBS / plain(request["job"])
    if (job / "begun").exists() or (job.is_dir() and not is_free(job / "lock")):
        return {}
    _sweep_jobs()
    shutil.rmtree(job, ignore_errors=True)
    for path, digest in request["files"].items():
        place = job / path
        if ".." in Path(path).parts or not place.is_relative_to(job):
            raise Failure("refused", f"{path!r} leads out of the run's folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        link(BLOBS / digest, place)
    (job / "out").mkdir(parents=True)
    (job / "lease").touch()
    program = [str(ENVS / plain(request["environment"]) / "bin/edgetok"), *request["arguments"]]
    if os.fork() == 0:
        become_supervisor(job, program)
    late = later(10)
    while not (job / "begun").exists():
        if late():
            raise Failure("lost", "the run could not be begun")
        time.sleep(0.02)
    return {}


def _sweep_jobs() -> None:
    """Remove what runs have left that nobody brought back: their supervisor has ended, an hour ago or more."""
    for job in JOBS.glob("*"):
        with suppress(OSError):
            if time.time() - (job / "lease").stat().st_mtime > 3600 and is_free(job / "lock"):
                end_orphan(job)
                shutil.rmtree(job)


def follow(request: Request) -> Request:
    """Pass on what a run says until it ends; whoever listens sends a byte for each line, which keeps the run alive."""
    job, at = JOBS / plain(request["job"]), request["at"]
    if not job.is_dir():
        raise Failure("lost", "the run's folder is gone")
    while True:
        ended = (job / "ended").exists()  # looked at first: what was said before the end is passed on
        gone = not ended and is_free(job / "lock")
        with (job / "stderr").open("rb") as file:
            file.seek(at)
            text = file.read(1 << 16)
        whole = text if ended or len(text) == 1 << 16 else text[: text.rfind(b"\n") + 1]
        at += len(whole)
        if ended and not text:
            break
        if gone and not (job / "ended").exists():
            raise out_of_space() or Failure("lost", "the run was killed there")
        say(at=at, lines=whole.decode(errors="replace").splitlines())
        if not select.select([0], [], [], 30)[0] or not os.read(0, 1):
            raise Failure("unheard", "nobody listens")
        os.utime(job / "lease")
        if not whole:
            time.sleep(0.5)
    answer = (job / "stdout").read_text(encoding="utf-8", errors="replace")
    if not answer.rstrip().endswith("}") and (full := out_of_space()):
        raise full
    return {"code": int((job / "ended").read_text()), "answer": answer}


def collect(request: Request) -> Request:
    """Send what a run has written: a line about each file, then its bytes."""
    out = JOBS / plain(request["job"]) / "out"
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
    job = JOBS / plain(request["job"])
    if job.is_dir():
        (job / "stop").touch()
        late = later(15)
        while not is_free(job / "lock") and not late():
            time.sleep(0.1)
        end_orphan(job)
        shutil.rmtree(job)
    return {}
