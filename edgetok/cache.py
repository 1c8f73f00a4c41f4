"""The user's cache folder: what was made from a bundle for one machine, under the bundle's id."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from edgetok.errors import OutputError


def cache_folder() -> Path:
    """Where lowered forms and engines are kept: EDGETOK_CACHE, or the user's cache folder."""
    if own := os.environ.get("EDGETOK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetok"


def made_once(folder: Path, make: Callable[[Path], None], waiting: Callable[[], None] | None = None) -> Path:
    """The folder, made now where it is not there: whole or not at all, and once, also when many processes want it.

    One process makes it and the others wait. The lock is the operating system's, so it goes with its process; what a
    killed one left half-made is removed by the next that makes this folder.

    Args:
        folder: inside the cache.
        make: fills an empty folder.
        waiting: told that another process is making it.

    Raises:
        OutputError: the cache cannot be written.
    """
    if folder.is_dir():
        return folder
    staging = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()
        if folder.is_dir():  # while this process waited
            return folder
        for left in folder.parent.glob(f".{folder.name}.tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        staging.mkdir()
        make(staging)
        os.rename(staging, folder)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}; set EDGETOK_CACHE to a folder that can"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        lock.release()
    return folder
