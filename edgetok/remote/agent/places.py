"""Where edgetok's files are on a device, and what all of them need: names, locks, room on the disk."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetok.remote.agent.protocol import Failure

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetok"
SHARE = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "edgetok"
BLOBS, JOBS, ENVS = CACHE / "blobs", CACHE / "jobs", SHARE / "envs"
FULL = "the disk is full"


def plain(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise Failure("refused", f"{name!r} is no plain name")
    return name


def is_free(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free() -> int:
    CACHE.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(CACHE).free


def out_of_space() -> Failure | None:
    """What ends a run, or cuts its answer off, where no more bytes or no more files can be written."""
    disk = os.statvfs(CACHE)
    full = free() < 1 << 20 or (disk.f_files > 0 and disk.f_favail < 10)
    return Failure("full", FULL) if full else None
