"""A program that prints a line every so often; the last one is what it says now."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence

from edgetok.sensors import Reading, Sensor


class LineSensor(Sensor):
    """A sensor that is a program's output; a subclass parses a line."""

    def __init__(self, command: Sequence[str]):
        self._command, self._line = tuple(command), ""

    def parse(self, line: str) -> Reading:
        """What a line says."""
        raise NotImplementedError

    def read(self) -> Reading:
        """What the newest line says; nothing before the first."""
        return self.parse(self._line) if self._line else Reading()

    def __enter__(self) -> LineSensor:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=1)
        if self._process.stdout:
            self._process.stdout.close()

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._line = line.strip()
