"""What goes between the two sides: a request, answers line by line, and the failures that are told."""

import json
import sys
from typing import Any

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
