"""PyTorch eager: the yardstick. It runs the original as it was captured, not the graph."""

from typing import TYPE_CHECKING

from edgetok.errors import MissingPackage, UsageError
from edgetok.runtimes import Runtime

if TYPE_CHECKING:
    from edgetok.runtimes import Feeds


class Eager(Runtime):
    """The `reference` of a source that was captured from PyTorch."""

    name = "eager"
    package = "torch"

    def _activate(self) -> None:
        if not callable(self.model):
            raise UsageError("the runtime 'eager' runs a captured PyTorch original, not a file: use 'onnxruntime'")
        try:
            import torch
        except ImportError:
            raise MissingPackage("torch", "running the PyTorch original") from None
        self._before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def _describe(self) -> dict[str, str]:
        import torch

        return {"version": torch.__version__, "provider": "eager"}

    def _run(self, feeds: "Feeds") -> "Feeds":
        import torch

        assert callable(self.model)
        with torch.inference_mode():
            return self.model(feeds)

    def _close(self) -> None:
        import torch

        torch.set_num_threads(self._before)
