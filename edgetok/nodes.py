"""Choices measured on several nodes at once: which nodes are alike, who measures what, and what is lost with a node.

A speed-up of one processor says nothing about another, so only nodes in like states measure: `alike` keeps the
largest group and says of each other node what is unlike. Each node measures every choice against the unreduced model
in a process beside it, as one machine alone does; so which node measured a choice makes no difference to its figures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from edgetok.errors import Refusal, RemoteError
from edgetok.evaluation import Evaluation
from edgetok.states import unlike_machines

Progress = Callable[[str, float], None]


class NodeLost(RemoteError):
    """A node is gone; what it was measuring can be measured by another."""


@dataclass(frozen=True)
class About:
    """What a node says of itself once the unreduced model runs there.

    Attributes:
        machine: the same for nodes that share a machine: they measure one after the other.
        device: the name of its device profile.
        tokens: of the unreduced model.
        cosine: of the unreduced model.
        identity: what the figures belong to: `edgetok.evaluation.Bench.identity`.
        environment: its fingerprint, as JSON.
    """

    machine: str
    device: str
    tokens: int
    cosine: float
    identity: dict[str, str]
    environment: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Node:
    """A place where choices are measured, one at a time.

    Attributes:
        name: for the user; empty for this machine.
        about: what it says of itself.
        evaluate: measures a choice; raises a Refusal where the model refuses it, and NodeLost where the node is gone.
        stop: ends what is being measured, called from another thread.
    """

    name: str
    about: About
    evaluate: Callable[[str], Evaluation]
    stop: Callable[[], None]


def alike(nodes: Sequence[Node]) -> tuple[list[Node], dict[str, str]]:
    """The largest group of nodes in like states, of equal ones the first; and why each other one is left out."""
    groups: list[list[Node]] = []
    for node in nodes:
        group = next((group for group in groups if not _unlike(node, group[0])), None)
        if group is None:
            groups.append([node])
        else:
            group.append(node)
    kept = max(groups, key=len)
    return kept, {node.name: _unlike(node, kept[0]) for node in nodes if node not in kept}


def told(kept: Sequence[Node], left_out: Mapping[str, str]) -> dict[str, str]:
    """Where a cluster's figures were measured, for a report; nothing where this machine measured."""
    if not any(node.name for node in kept):
        return {}
    others = {f"left out: {name}": why for name, why in left_out.items()}
    return {"nodes": ", ".join(node.name for node in kept), **others}


def _unlike(node: Node, other: Node) -> str:
    """What keeps the figures of two nodes from standing in one table; empty for nothing."""
    pair = {each.name: each.about for each in (node, other)}
    told = [str(each) for each in unlike_machines({name: about.environment for name, about in pair.items()})]
    own, theirs = ({"device": each.about.device, **each.about.identity} for each in (node, other))
    differ = [key for key in own if key != "cpu" and own[key] != theirs[key]]
    return "; ".join([*told, *(f"{key}: {own[key][:40]}, not {theirs[key][:40]}" for key in differ)])


def measure(
    nodes: Sequence[Node],
    choices: Sequence[str],
    keep: Callable[[Evaluation], None],
    progress: Progress | None = None,
) -> dict[str, Refusal]:
    """Let nodes measure choices, each the next one that waits; nodes of one machine take turns.

    Args:
        nodes: in like states.
        choices: each once.
        keep: called with each evaluation as it arrives.
        progress: told what is begun, and how far all is.

    Returns:
        What the model refuses, by choice, in the order of the choices.

    Raises:
        RemoteError: all nodes are gone.
        EdgetokError: a choice could not be measured; those under way on other nodes are given up.
    """
    left, waiting, refused = list(nodes), deque(choices), dict[str, Refusal]()
    running: dict[Future[Evaluation], tuple[Node, str]] = {}
    with ThreadPoolExecutor(len(nodes)) as pool:
        try:
            while waiting or running:
                for node in left:
                    if waiting and node.about.machine not in {each.about.machine for each, _ in running.values()}:
                        choice = waiting.popleft()
                        if progress:
                            done = len(choices) - len(waiting) - len(running) - 1
                            progress(f"{choice} on {node.name}" if node.name else choice, done / len(choices))
                        running[pool.submit(node.evaluate, choice)] = node, choice
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    node, choice = running.pop(future)
                    try:
                        keep(future.result())
                    except Refusal as refusal:
                        refused[choice] = refusal
                    except NodeLost as lost:
                        left.remove(node)
                        waiting.appendleft(choice)
                        if not left:
                            raise RemoteError(f"{lost}; no node is left to measure {choice}") from lost
        except BaseException:
            for node in left:
                node.stop()
            raise
    return {choice: refused[choice] for choice in choices if choice in refused}
