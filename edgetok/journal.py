"""What was measured so far, on the disk: a run that was killed goes on where it stood.

One JSON document per line. The first says what the figures belong to; the others are evaluations, each written by one
call and synced before the next is begun. A last line without an end is what a killed run was about to write: it goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgetok.errors import OutputError
from edgetok.evaluation import Evaluation

Owner = Mapping[str, Any]  # name: a JSON value, such as the model's digest


class Journal:
    """The evaluations of one search space on one machine.

    Attributes:
        path: the file.
        entries: what it holds, in the order it was measured.
    """

    def __init__(self, path: Path, owner: Owner):
        """Open the file, or begin it.

        Raises:
            OutputError: it belongs to something else, is no journal, or cannot be written.
        """
        self.path, self.entries = path, list[Evaluation]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise OutputError(f"the journal {path} cannot be written: {error.strerror}") from error
        try:
            self._begin(json.loads(json.dumps(owner)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def append(self, evaluation: Evaluation) -> None:
        """Keep an evaluation: it is on the disk when this returns."""
        self._write(evaluation.model_dump(mode="json"))
        self.entries.append(evaluation)

    def _begin(self, owner: dict[str, Any]) -> None:
        data = self.path.read_bytes()
        whole, _, cut_off = data.rpartition(b"\n")
        if cut_off:
            os.ftruncate(self._file, len(data) - len(cut_off))
        if not whole:
            self._write({"belongs_to": owner})
            return
        first, *lines = whole.split(b"\n")
        self._compare(self._read(first, 1).get("belongs_to"), owner)
        for number, line in enumerate(lines, 2):
            try:
                self.entries.append(Evaluation.model_validate(self._read(line, number)))
            except ValidationError as error:
                raise self._damaged(number) from error

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(number) from error
        if not isinstance(value, dict):
            raise self._damaged(number)
        return value

    def _damaged(self, number: int) -> OutputError:
        return OutputError(f"{self.path}: line {number} is none of a journal; delete the file to begin anew")

    def _compare(self, there: Any, owner: dict[str, Any]) -> None:
        if not isinstance(there, dict):
            raise self._damaged(1)
        other = [name for name in {**there, **owner} if there.get(name) != owner.get(name)]
        if other:
            what = "; ".join(f"{name}: {_short(there.get(name))}, now {_short(owner.get(name))}" for name in other)
            raise OutputError(
                f"the journal {self.path} was measured on something else ({what}); delete it to begin anew, or choose "
                "another output"
            )

    def _write(self, value: Any) -> None:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            raise OutputError(f"the journal {self.path} cannot be written: {error.strerror}") from error
        if written < len(line):  # the next run cuts the half line off
            raise OutputError(f"the journal {self.path} cannot be written: the disk is full")


def _short(value: Any) -> str:
    """A value in a message: digests by their first digits, lists by their length."""
    if isinstance(value, list):
        return f"{len(value)} candidates"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
