"""The way to a device: the `ssh` program as the user has it configured.

Keys, aliases, ProxyJump, known hosts are all ssh's own business and left as they are. Nothing asks (BatchMode): a host
that ssh does not know is refused by ssh. One connection carries everything (ssh's ControlMaster, its socket in a
folder of ours). What runs there is `agent/`, sent as text, so the remote shell gets one constant command and
no name or path of ours ever goes through it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgetok.errors import RemoteError
from edgetok.remote import agent
from edgetok.remote.address import Address

# In one pair of quotes that sh, csh and fish read alike. Python tells its version before it sees newer syntax.
COMMAND = (
    "python3 -c 'import sys; sys.version_info < (3, 10) and sys.exit(\"edgetok: Python \" + sys.version.split()[0]);"
    " s = sys.stdin.buffer; exec(s.read(int(s.readline())))'"
)
# No forwarding, no command and no terminal that ssh_config may ask for on this host: they are for people's sessions.
OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3", "ClearAllForwardings=yes",
    "ForwardAgent=no", "ForwardX11=no", "RemoteCommand=none", "RequestTTY=no",
)  # fmt: skip
PATIENCE = 300.0  # seconds in which a connection that dropped may come back
LINE = 1 << 26  # bytes: the longest answer that is read

Answer = dict[str, Any]


class Dropped(RemoteError):
    """The connection went away."""


class Connection:
    """A connection to a device, which opens itself again when it drops; a context manager, which closes it.

    Attributes:
        address: where it goes.
        name: what the device is called in messages.
    """

    def __init__(self, address: Address, name: str | None = None, tell: Callable[[str], None] = lambda _: None):
        """Prepare it.

        Args:
            address: where it goes.
            name: what the device is called in messages; None for the address.
            tell: told when the connection is gone and sought again.
        """
        self.address, self.name, self._tell = address, name or str(address), tell
        self._master: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def __enter__(self) -> Connection:
        if shutil.which("ssh") is None:
            raise RemoteError("there is no ssh here: install OpenSSH's client (apt install openssh-client)")
        self._folder = tempfile.TemporaryDirectory(prefix="edgetok-")
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._folder.cleanup()

    def ask(
        self,
        do: str,
        request: Mapping[str, Any] | None = None,
        *,
        payload: Callable[[], Iterable[bytes]] = tuple,
        heard: Callable[[Answer, IO[bytes]], None] | None = None,
    ) -> Answer:
        """Have the agent do something, again if the connection drops meanwhile.

        Args:
            do: a function of `agent/main.py`.
            request: what it is told; read anew for each attempt.
            payload: gives the bytes behind the request.
            heard: gets each line before the last, and the stream that it came from.

        Raises:
            RemoteError: it failed there, or the connection does not come back.
        """
        if self._given_up:
            raise RemoteError(f"{self.name}: the connection was lost")
        last = time.monotonic()

        def noted(answer: Answer, stream: IO[bytes]) -> None:
            nonlocal last
            last = time.monotonic()
            if heard is not None:
                heard(answer, stream)

        while True:
            try:
                return self._once({"do": do, **(request or {})}, payload(), noted)
            except Dropped as dropped:
                self._reopen(dropped, last)

    def _once(
        self, request: Answer, payload: Iterable[bytes], heard: Callable[[Answer, IO[bytes]], None]
    ) -> Answer:
        source = agent.source()
        with tempfile.TemporaryFile() as errors, self._ssh([COMMAND], stderr=errors) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(b"%d\n" % len(source) + source + json.dumps(request).encode() + b"\n")
                for chunk in payload:
                    process.stdin.write(chunk)
                process.stdin.flush()
            except BrokenPipeError:
                pass  # what it answered says why
            except BaseException:  # a file of ours that cannot be read
                process.kill()
                raise
            try:
                while line := process.stdout.readline(LINE):
                    answer = self._read(line)
                    if "done" in answer:
                        return dict(answer["done"])
                    if "error" in answer:
                        raise self._failure(answer)
                    heard(answer, process.stdout)
                    self._reply(process.stdin)
            except BaseException:
                process.kill()
                raise
            finally:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            code = process.wait()
            errors.seek(0)
            raise self._explain(code, errors.read().decode(errors="replace"))

    def _reply(self, stream: IO[bytes]) -> None:
        """A sign that the line was heard; who has ended wants none, and what it said before is still to be read."""
        with suppress(BrokenPipeError):
            stream.write(b"\n")
            stream.flush()

    def _read(self, line: bytes) -> Answer:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            told = line[:80].decode(errors="replace").strip()
            raise RemoteError(
                f"{self.name} answered {told!r}, which is none of edgetok's: what its shell's startup files print for "
                "sessions without a terminal must go"
            )
        return answer

    def _failure(self, answer: Answer) -> RemoteError:
        told = str(answer["error"])
        if answer.get("kind") == "full":
            free = answer.get("free")
            left = f" ({free / 1e6:.0f} MB are free)" if isinstance(free, int) else ""
            told += f"{left}; nothing is left half-written; edgetok's own are ~/.cache/edgetok, ~/.local/share/edgetok"
        return RemoteError(f"{self.name}: {told}")

    def _explain(self, code: int, told: str) -> RemoteError:
        """Why ssh, or the command there, ended without an answer."""
        text = " ".join(told.split())[-500:]
        if code == 127 or "python3: not found" in text or "python3: command not found" in text:
            return RemoteError(f"{self.name} has no python3 ({text}): install Python 3.10 or newer there, with venv")
        if "edgetok: Python " in text:
            version = text.rpartition("edgetok: Python ")[2].split()[0]
            return RemoteError(f"{self.name} has Python {version}: edgetok needs 3.10 or newer as python3 there")
        if code == 255 or code < 0:  # also where the program there was killed: ssh tells no difference
            return Dropped(f"{self.name}: the connection was lost ({text or 'without a word'})")
        return RemoteError(f"{self.name}: {text or f'ended with exit code {code} without a word'}")

    def _ssh(self, command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start ssh by our socket, in a session of its own: Ctrl-C reaches edgetok alone, which cleans up there."""
        options = [part for option in OPTIONS for part in ("-o", option)]
        options += ["-o", "ProxyCommand=false"]  # by our socket or not at all: ssh would else connect anew, each time
        program = ["ssh", "-T", "-S", str(self._socket), *options, *self.address.arguments, *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(program, stdin=pipe, stdout=pipe, start_new_session=True, **streams)

    @property
    def _socket(self) -> Path:
        return Path(self._folder.name) / "control"

    def _open(self) -> None:
        """Open the connection that all sessions share.

        It carries a `cat` that reads from us: should edgetok be killed, that ends, and ssh with it.

        Raises:
            RemoteError: ssh does not get through; what it said, and what helps.
        """
        options = [part for option in OPTIONS for part in ("-o", option)]
        told = Path(self._folder.name) / "told"
        with told.open("wb") as errors:
            program = ["ssh", "-T", "-M", "-S", str(self._socket), *options, *self.address.arguments, "cat"]
            self._master = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )
        while not self._socket.exists():
            if self._master.poll() is not None:
                raise _refused(self.name, self.address, told.read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.02)

    def _reopen(self, dropped: Dropped, last: float) -> None:
        """Connect again, for PATIENCE after the last that was heard."""
        self._tell("the connection was lost; connecting again")
        why: RemoteError = dropped
        while time.monotonic() - last < PATIENCE:
            self._close()
            time.sleep(1)
            try:
                return self._open()
            except Unreachable as error:
                why = error
        self._given_up = True
        raise RemoteError(f"{dropped}, and did not come back in {PATIENCE:.0f} s: {why}") from why

    def _close(self) -> None:
        if self._master is None:
            return
        assert self._master.stdin is not None
        self._master.stdin.close()
        try:
            self._master.wait(2)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        self._master = None
        self._socket.unlink(missing_ok=True)


class Unreachable(RemoteError):
    """Nobody answers at that address, for now."""


def _refused(name: str, address: Address, told: str) -> RemoteError:
    """What ssh said, with what to do about it."""
    whole = " ".join(re.sub("@@@+", "", told).split())
    text = whole[-300:].rstrip(".") or "ssh ended without a word"
    by_hand = " ".join(["ssh", *(part for part in address.arguments if part != "--")])
    if "IDENTIFICATION HAS CHANGED" in whole:
        cure = "find out why its key is another one; if it was set up anew, ssh-keygen -R removes the old key"
    elif "Host key verification failed" in text or "No matching host key" in text:
        cure = f"connect once by hand ({by_hand}) and compare the fingerprint, or add its key with ssh-keyscan"
    elif "Permission denied" in text:
        cure = f"no key of yours is accepted, and edgetok asks for no password: ssh-copy-id or ssh-add; try {by_hand}"
    else:
        return Unreachable(f"{name} cannot be reached: {text}; try {by_hand}")
    return RemoteError(f"{name} is refused: {text}; {cure}")
