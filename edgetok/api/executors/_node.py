"""What runs on a node: the unreduced model's process, and one choice at a time beside it."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgetok import __version__
from edgetok.errors import EdgetokError
from edgetok.files import text_of
from edgetok.nodes import About

if TYPE_CHECKING:
    from edgetok.evaluation import Bench

_BOOT = Path("/proc/sys/kernel/random/boot_id")  # containers of one machine have the same


def about(bench: Bench, device: str) -> About:
    """What this machine says of itself.

    Raises:
        DeviceError: it is not that device.
    """
    from edgetok.api.loading import resolve_device
    from edgetok.fingerprint import environment

    return About(
        machine=text_of(_BOOT) or platform.node(),
        device=resolve_device(device).name,
        tokens=bench.task.work.tokens,
        cosine=bench.cosine,
        identity=bench.identity(),
        environment=environment().model_dump(mode="json"),
    )


class Measuring:
    """Measures on a node what another machine asks for; requests and answers are JSON values and bytes.

    An answer has "done", or "error" and "message": errors keep their class whatever carries them.
    """

    def __init__(self) -> None:
        self._stack, self._busy = ExitStack(), threading.Lock()
        self._bench: Bench | None = None

    def version(self) -> str:
        """Of edgetok there."""
        return __version__

    def open(self, files: Mapping[str, bytes], device: str, rounds: int) -> dict[str, Any]:
        """Begin with a packed subject; the answer is `About`."""

        def done() -> dict[str, Any]:
            from edgetok.api.subject import Subject
            from edgetok.evaluation import Bench

            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="edgetok-")))
            self._bench = self._stack.enter_context(Bench(Subject.unpack(files, folder).task(), rounds=rounds))
            return asdict(about(self._bench, device))

        return self._answer(done)

    def evaluate(self, reduce: str) -> dict[str, Any]:
        """Measure a choice; the answer is an `Evaluation`."""

        def done() -> dict[str, Any]:
            assert self._bench is not None
            return self._bench.evaluate(reduce).model_dump(mode="json")

        return self._answer(done)

    def close(self) -> None:
        """End what is being measured, from another thread, and remove all files."""
        if self._bench is not None:
            self._bench.stop()
        with self._busy, suppress(EdgetokError):
            self._stack.close()

    def _answer(self, done: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self._busy:
            try:
                return {"done": done()}
            except EdgetokError as error:
                return {"error": type(error).__name__, "message": str(error)}
