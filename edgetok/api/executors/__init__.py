"""Where a sweep is measured, one executor per file: on this machine, or on the nodes of a cluster that runs.

An executor gives `edgetok.nodes.measure` its nodes. The model is captured here and sent packed; a node makes the
choices of it by the same code, so the graphs have the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgetok.discovery import load

if TYPE_CHECKING:
    from edgetok.api.subject import Subject
    from edgetok.nodes import Node, Progress


@dataclass(frozen=True)
class Joined:
    """What can measure a subject.

    Attributes:
        nodes: at least one, all in like states.
        left_out: why others do not, by name.
    """

    nodes: list[Node]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class How:
    """How choices are measured.

    Attributes:
        device: a profile that the machine must fit; see `edgetok.machine.resolve`.
        rounds: turns of each side of a comparison.
        address: of the cluster; None where the engine itself finds it.
        progress: told what is waited for.
    """

    device: str
    rounds: int
    address: str | None
    progress: Progress


Open: TypeAlias = "Callable[[Subject], Joined]"


@dataclass(frozen=True)
class Executor:
    """Where choices are measured.

    Attributes:
        join: a context that makes sure there is something to measure on, and gives what opens it for a subject. At its
            end what was begun is over, and its files are gone.
    """

    join: Callable[[How], AbstractContextManager[Open]]


def find(text: str) -> tuple[Executor, str | None]:
    """The executor of "local", "ray" or "ray:HOST:PORT", and its address.

    Raises:
        UnknownName: there is none.
    """
    name, _, address = text.partition(":")
    return load(__name__, "executor", name, Executor), address or None
