"""TensorRT, through Polygraphy. Never run on a card: none with TensorRT was at hand (docs/tensorrt.md)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgetok.engine.order import Builder, builder_version
from edgetok.engine.session import Session
from edgetok.parts import Step
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    from edgetok.runtimes import Feeds


class TensorRt(Runtime):
    """A lowered graph as an engine, built for this card at the first use and kept in the cache."""

    name = "tensorrt"
    package = "tensorrt"
    on_card = True
    builder: ClassVar[Builder] = "tensorrt"
    provider = "TensorRT"

    def _activate(self) -> None:
        assert isinstance(self.model, Path)
        self._session = Session(self.model, self.builder, self.inputs).__enter__()

    def _describe(self) -> dict[str, str]:
        return {"version": builder_version(self.builder), "provider": self.provider}

    def _prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        uploaded = self._session.upload(feeds)
        return lambda: self._session.run(uploaded)

    def _steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        return self._session.steps(feeds)

    def _run(self, feeds: "Feeds") -> "Feeds":
        return self._prepare(feeds)()

    def _close(self) -> None:
        self._session.__exit__()
