"""Files that were sent, by their sha256."""

import hashlib
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from edgetok.remote.agent.places import BLOBS, free
from edgetok.remote.agent.protocol import Failure, Request

UNUSED = 30 * 86400  # seconds until a file that nobody asked for again goes


def have(request: Request) -> Request:
    """Which of the files are not here yet."""
    missing = [digest for digest, size in request["blobs"] if not _is_there(digest, size)]
    return {"missing": missing, "free": free()}


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


def _is_there(digest: str, size: int) -> bool:
    blob = BLOBS / digest
    if found := blob.is_file() and blob.stat().st_size == size:
        os.utime(blob)  # used today
    return found


def link(blob: Path, place: Path) -> None:
    try:
        os.link(blob, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(blob, place)
