"""On this machine, one choice after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from edgetok.api.executors import Executor, How, Joined, Open
from edgetok.api.executors._node import about
from edgetok.errors import UsageError
from edgetok.nodes import Node

if TYPE_CHECKING:
    from edgetok.api.subject import Subject


@contextmanager
def join(how: How) -> Iterator[Open]:
    """This machine as the only node.

    Raises:
        UsageError: an address is given.
        DeviceError: this machine is not the device.
    """
    from edgetok.api.loading import resolve_device
    from edgetok.evaluation import Bench

    if how.address is not None:
        raise UsageError(f"--executor local:{how.address}: local is this machine and takes no address")
    resolve_device(how.device)
    with ExitStack() as stack:

        def opened(subject: Subject) -> Joined:
            bench = stack.enter_context(Bench(subject.task(), rounds=how.rounds))
            return Joined([Node("", about(bench, how.device), bench.evaluate, bench.stop)], {})

        yield opened


EXECUTOR = Executor(join)
