"""On the nodes of a Ray cluster that runs (https://docs.ray.io/en/latest/cluster/getting-started.html).

Each node gets one actor that holds all of its processors, so that nothing else of the cluster runs beside a
measurement. The packed model is put into Ray's object store once, and goes to each node once.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from edgetok import __version__
from edgetok.api.executors import Executor, How, Joined, Open
from edgetok.api.executors._node import Measuring
from edgetok.errors import MissingPackage, RemoteError, revived
from edgetok.evaluation import Evaluation
from edgetok.nodes import About, Node, NodeLost, alike

if TYPE_CHECKING:
    from edgetok.api.subject import Subject

REACHED = 5.0  # seconds for an address to answer
FREE = 60.0  # seconds for a node to have its processors free, and to start the actor
ENDED = 30.0  # seconds for an actor to end what it measures and remove its files
_START = "start one (ray start --head), or name its address: --executor ray:HOST:PORT"


@contextmanager
def join(how: How) -> Iterator[Open]:
    """The cluster at an address, or the one that RAY_ADDRESS names, or the one that this machine is part of.

    Raises:
        MissingPackage: Ray is not installed here.
        RemoteError: no cluster runs there, or none of its nodes can measure.
    """
    ray = _connected(how.address or os.environ.get("RAY_ADDRESS") or "auto")
    actors: dict[str, Any] = {}
    try:
        yield partial(_opened, ray, actors, how)
    finally:
        _end(ray, list(actors.values()))
        ray.shutdown()


def _opened(ray: Any, actors: dict[str, Any], how: How, subject: Subject) -> Joined:
    """Nodes in like states; `actors` gets those that hold processors meanwhile, the others give theirs back."""
    actors.update(_actors(ray))
    left_out = _answering(ray, actors, how)
    files = ray.put(subject.pack())
    opening = {name: actor.open.remote(files, how.device, how.rounds) for name, actor in actors.items()}
    nodes = []
    for name, answer in opening.items():
        try:
            about = About(**_done(ray.get(answer)))
        except Exception as error:
            left_out[name] = _short(error)
        else:
            actor = actors[name]
            nodes.append(Node(name, about, partial(_evaluate, ray, name, actor), actor.close.remote))
    if not nodes:
        told = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise RemoteError(f"no node of the Ray cluster can measure: {told or 'none has processors'}")
    kept, unlike = alike(nodes)
    left_out |= unlike
    _end(ray, [actors.pop(name) for name in left_out if name in actors])
    return Joined(kept, left_out)


def _connected(address: str) -> Any:
    """Ray, connected. Its own attempt at a port where nobody listens takes minutes, so that is tried here first."""
    try:
        import ray
    except ImportError:
        raise MissingPackage("edgetok[ray]", "--executor ray") from None
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), REACHED).close()
        except (OSError, ValueError, OverflowError) as error:
            raise RemoteError(f"no Ray cluster answers at {address!r}: {error}; {_START}") from None
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RemoteError(f"no Ray cluster at {address!r}: {_short(error)}; {_START}") from None
    return ray


def _actors(ray: Any) -> dict[str, Any]:
    """One actor per node that has processors, by the node's name."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    found = {}
    for node in sorted(ray.nodes(), key=_name):
        if node["Alive"] and (processors := node["Resources"].get("CPU")):
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            made = ray.remote(Measuring).options(num_cpus=processors, scheduling_strategy=place, max_concurrency=2)
            found[_name(node)] = made.remote()
    return found


def _name(node: Mapping[str, Any]) -> str:
    """Its address, or what `ray start --node-name` says; two may share either."""
    return f"{node['NodeName']} {node['NodeID'][:8]}"


def _answering(ray: Any, actors: dict[str, Any], how: How) -> dict[str, str]:
    """Take out the actors that cannot measure, and say why."""
    how.progress(f"waiting for {len(actors)} nodes", 0.0)
    asked = {name: actor.version.remote() for name, actor in actors.items()}
    in_time, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=FREE) if asked else ([], [])
    left_out = {}
    for name, answer in asked.items():
        try:
            there = ray.get(answer) if answer in in_time else None
        except Exception as error:
            left_out[name] = _short(error)
        else:
            if there is None:
                left_out[name] = f"its processors were not free within {FREE:.0f} s"
            elif there != __version__:
                left_out[name] = f"edgetok {there} is installed there, {__version__} here"
    _end(ray, [actors.pop(name) for name in left_out])
    return left_out


def _evaluate(ray: Any, name: str, actor: Any, reduce: str) -> Evaluation:
    try:
        answer = ray.get(actor.evaluate.remote(reduce))
    except ray.exceptions.RayTaskError:
        raise  # a fault in the code there
    except ray.exceptions.RayError as error:
        raise NodeLost(f"the node {name} was lost: {_short(error)}") from None
    return Evaluation.model_validate(_done(answer))


def _done(answer: Mapping[str, Any]) -> Any:
    if "error" in answer:
        raise revived(answer["error"], answer["message"])
    return answer["done"]


def _end(ray: Any, actors: Sequence[Any]) -> None:
    """Let actors end what they measure and remove their files, then end them."""
    ended = [actor.close.remote() for actor in actors]
    if ended:
        ray.wait(ended, num_returns=len(ended), timeout=ENDED)
    for actor in actors:
        ray.kill(actor)


def _short(error: Exception) -> str:
    """The line of an error that says most: Ray's are many lines long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error: " in line), lines[0] if lines else type(error).__name__)


EXECUTOR = Executor(join)
