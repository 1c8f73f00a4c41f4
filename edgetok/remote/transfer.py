"""Files to a device and back: each is told by its sha256, sent once, and checked where it arrives.

What was sent stays in the device's `~/.cache/edgetok/blobs`: a bundle that changed in its graph alone sends that alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from edgetok.errors import OutputError, RemoteError
from edgetok.files import sha256_of
from edgetok.remote.connection import Answer, Connection

CHUNK = 1 << 20
MOST = 1 << 34  # bytes of one file that is brought back
RESERVE = 50_000_000  # bytes that are to be free on the device beyond what is sent

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Blob:
    """A file to send: where it lies, or its bytes."""

    content: Path | bytes

    @cached_property
    def digest(self) -> str:
        """Its sha256, in hex."""
        return hashlib.sha256(self.content).hexdigest() if isinstance(self.content, bytes) else sha256_of(self.content)

    @cached_property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """Its bytes."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def send(connection: Connection, blobs: Sequence[Blob], tell: Tell) -> int:
    """Send what the device does not have yet.

    Returns:
        The bytes that were sent.

    Raises:
        RemoteError: they do not fit there, or arrive damaged.
    """
    by_digest = {blob.digest: blob for blob in blobs}
    wanted = [(digest, blob.size) for digest, blob in by_digest.items()]
    answer = connection.ask("have", {"blobs": wanted})
    missing = [by_digest[digest] for digest in answer["missing"] if digest in by_digest]
    total = sum(blob.size for blob in missing)
    if total and total + RESERVE > answer["free"]:
        raise RemoteError(
            f"{connection.name}: {total / 1e6:.0f} MB are to be sent, and {answer['free'] / 1e6:.0f} MB are free in "
            "~/.cache there: make room; ~/.cache/edgetok/blobs holds what was sent before, and may be removed"
        )
    before = 0
    for blob in missing:  # one by one: what has arrived when a connection drops is not sent again
        told = f"sending {total / 1e6:.1f} MB to {connection.name}"

        def chunks(blob: Blob = blob, sent: int = before, told: str = told) -> Iterator[bytes]:
            for chunk in blob.chunks():
                tell(told, sent / total)
                yield chunk
                sent += len(chunk)

        connection.ask("put", {"digest": blob.digest, "size": blob.size}, payload=chunks)
        before += blob.size
    return total


def bring_back(connection: Connection, job: str, folder: Path, force: bool) -> list[str]:
    """Fetch what a run wrote into a folder of this machine: all of it or nothing.

    Args:
        connection: to the device.
        job: the run.
        folder: a new folder; with `force` its files are replaced one by one.
        force: the folder may exist.

    Returns:
        The files' names.

    Raises:
        OutputError: the folder cannot be written.
        RemoteError: a file arrives damaged.
    """
    staging = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    names: list[str] = []

    def receive(answer: Answer, stream: IO[bytes]) -> None:
        name, size = str(answer["file"]), int(answer["size"])
        if Path(name).name != name or name.startswith(".") or not 0 <= size <= MOST:
            raise RemoteError(f"{connection.name} sends a file {name!r} of {size} bytes, which is none of a report's")
        got = hashlib.sha256()
        with (staging / name).open("wb") as file:
            while size and (chunk := stream.read(min(size, CHUNK))):
                got.update(chunk)
                file.write(chunk)
                size -= len(chunk)
        if not size and got.hexdigest() != answer["sha256"]:
            raise RemoteError(f"{connection.name}: {name} arrived damaged: its sha256 is not the one that was told")
        names.append(name)

    try:
        staging.mkdir(parents=True)
        connection.ask("collect", {"job": job}, heard=receive)
        if folder.exists() and force:
            for name in names:
                os.replace(staging / name, folder / name)
        else:
            os.rename(staging, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        for path in staging.glob("*"):
            path.unlink()
        if staging.is_dir():
            staging.rmdir()
    return sorted(set(names))
