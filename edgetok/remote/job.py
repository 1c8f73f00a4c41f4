"""A run on a device that outlives its connection.

It runs there in a session of its own and writes into files. Whoever listens may go and come back; one who stays away
for ten minutes, or is interrupted, leaves nothing there: `agent/supervisor.py` ends the run and removes its folder.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgetok.errors import RemoteError
from edgetok.remote.connection import Answer, Connection
from edgetok.remote.transfer import Blob, Tell, bring_back, send


@dataclass(frozen=True)
class Job:
    """A run that was begun.

    Attributes:
        id: of its folder there.
        connection: to the device.
    """

    id: str
    connection: Connection

    def wait(self, tell: Tell) -> Answer:
        """Listen until it ends.

        Args:
            tell: told what is being done there.

        Returns:
            The JSON document that it printed.

        Raises:
            RemoteError: it failed, with what edgetok said there; its exit code is the error's.
        """
        request: dict[str, Any] = {"job": self.id, "at": 0}
        last: deque[str] = deque(maxlen=5)
        said = ("beginning", 0.0)

        def heard(answer: Answer, _: IO[bytes]) -> None:
            nonlocal said
            request["at"] = answer["at"]  # where to go on after a connection that dropped
            for line in answer["lines"]:
                if (told := _progress(line)) is not None:
                    said = told
                else:
                    last.append(line)
            tell(*said)  # twice a second even if there is nothing new: whoever is told may interrupt

        ended = self.connection.ask("follow", request, heard=heard)
        return self._answer(int(ended["code"]), str(ended["answer"]), " ".join(last))

    def bring_back(self, folder: Path, force: bool) -> list[str]:
        """Fetch what it wrote into `out`: see `transfer.bring_back`."""
        return bring_back(self.connection, self.id, folder, force)

    def _answer(self, code: int, text: str, last: str) -> Answer:
        name = self.connection.name
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise RemoteError(f"{name}: edgetok {how} there, without an answer: {last or 'nothing was said'}")
        if isinstance(told := answer.get("error"), dict):
            error = RemoteError(f"{name}: {told.get('message')}")
            error.exit_code = code
            raise error
        return answer


@contextmanager
def begin(
    connection: Connection, environment: str, arguments: Sequence[str], files: Mapping[str, Blob], tell: Tell
) -> Iterator[Job]:
    """Begin a run, and remove everything of it at the end.

    Args:
        connection: to the device.
        environment: what `installation.install` gave.
        arguments: edgetok's, in the run's folder.
        files: what is put into that folder first, by path.
        tell: told what is being done.
    """
    job = Job(secrets.token_hex(8), connection)
    send(connection, list(files.values()), tell)
    tell(f"beginning on {connection.name}", 0.0)
    placed = {path: blob.digest for path, blob in files.items()}
    try:
        connection.ask(
            "start", {"job": job.id, "environment": environment, "arguments": list(arguments), "files": placed}
        )
        yield job
    except BaseException:
        with suppress(RemoteError):  # who cannot be reached removes it after a while
            connection.ask("remove", {"job": job.id})
        raise
    connection.ask("remove", {"job": job.id})


def _progress(line: str) -> tuple[str, float] | None:
    """What a line of EDGETOK_PROGRESS=json says; None where it is none."""
    try:
        told = json.loads(line)
        return str(told["progress"]), float(told["done"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
