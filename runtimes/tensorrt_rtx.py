"""TensorRT-RTX, for desktop cards, through Polygraphy; engines are built anywhere. Never run on a card."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.engine.order import builder_version
from edgetok.engine.session import Session
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    from edgetok.runtimes import Feeds


class TensorRtRtx(Runtime):
    """A lowered graph as an engine, built for this card at the first use and kept in the cache."""

    name = "tensorrt-rtx"
    package = "tensorrt_rtx"
    on_card = True

    def _activate(self) -> None:
        assert isinstance(self.model, Path)
        self._session = Session(self.model, "tensorrt-rtx", self.inputs).__enter__()

    def _describe(self) -> dict[str, str]:
        return {"version": builder_version("tensorrt-rtx"), "provider": "TensorRT-RTX, CUDA graphs"}

    def _prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        uploaded = self._session.upload(feeds)
        return lambda: self._session.run(uploaded)

    def _run(self, feeds: "Feeds") -> "Feeds":
        return self._prepare(feeds)()

    def _close(self) -> None:
        self._session.__exit__()
