"""One runtime per file, behind one base class that holds the checks.

with runtimes.load("onnxruntime")(path, inputs) as runtime:
    outputs = runtime.run({"image": image})
"""

if __name__ != "edgetok.runtimes":
    raise ImportError(f"import edgetok.runtimes, not {__name__}: it would be a second copy")

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar

from edgetok.errors import UnknownName, UsageError
from edgetok.inputs import check_inputs
from edgetok.model import TensorSpec
from edgetok.parts import Step

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    from edgetok.layers import ProfiledRun

    Feeds = dict[str, "np.ndarray"]

DEFAULT = "onnxruntime"
Source = Path | bytes | Callable[["Feeds"], "Feeds"]


class Runtime(ABC):
    """A model ready to run; live between `__enter__` and `__exit__`.

    Args:
        model: an ONNX file or its bytes; for PyTorch eager a callable from feeds to outputs.
        inputs: what the model takes; every feed is checked against it.
        threads: how many threads one run may use; None leaves it to the runtime.
        plain: whether edgetok's own operators are left out, as in a runtime that knows only the bundle's functions.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # what is imported
    on_card: ClassVar[bool] = False  # whether it computes on a graphics card, for which graphs are lowered by device

    def __init__(self, model: Source, inputs: Sequence[TensorSpec], *, threads: int | None = None, plain: bool = False):
        if threads is not None and threads < 1:
            raise UsageError(f"threads={threads}: give a count of at least 1, or leave it to the runtime")
        self.model, self.inputs, self.threads, self.plain = model, tuple(inputs), threads, plain

    def __enter__(self) -> "Self":
        self._activate()
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def run(self, feeds: "Feeds") -> "Feeds":
        """Check the feeds and run once."""
        return self.prepare(feeds)()

    def prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        """Check the feeds once; what is returned runs without checks, and is what gets timed."""
        check_inputs(feeds, self.inputs)
        return self._prepare(feeds)

    def describe(self) -> dict[str, str]:
        """Name, version and settings, for reports."""
        threads = "the runtime's choice" if self.threads is None else str(self.threads)
        return {"runtime": self.name, "threads": threads, **self._describe()}

    def profile(self, feeds: "Feeds", *, warm_up: int, runs: int) -> "list[ProfiledRun]":
        """Run with the runtime's own profiler on, in a session of its own: when every node ran, and for how long.

        Nothing where the runtime does not time single nodes.
        """
        check_inputs(feeds, self.inputs)
        return self._profile(feeds, warm_up, runs)

    def steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        """One run from arrays to arrays as steps that can be timed apart; none where the runtime does not tell."""
        steps = self._steps(feeds)
        return (Step("check the arrays", "host", lambda: check_inputs(feeds, self.inputs)), *steps) if steps else ()

    @abstractmethod
    def _activate(self) -> None: ...

    @abstractmethod
    def _describe(self) -> dict[str, str]: ...

    @abstractmethod
    def _run(self, feeds: "Feeds") -> "Feeds": ...

    @abstractmethod
    def _close(self) -> None: ...

    def _prepare(self, feeds: "Feeds") -> "Callable[[], Feeds]":
        """What is done once for many runs, such as copying the inputs to a card."""
        return lambda: self._run(feeds)

    def _profile(self, feeds: "Feeds", warm_up: int, runs: int) -> "list[ProfiledRun]":
        return []

    def _steps(self, feeds: "Feeds") -> tuple[Step, ...]:
        return ()


def names() -> list[str]:
    """The names of all runtimes, whether their package is installed or not."""
    return sorted(_classes())


def of_files() -> list[str]:
    """The names of the runtimes that run an ONNX file on a processor and are installed; ONNX Runtime first."""
    found = [name for name, of in _classes().items() if name != "eager" and not of.on_card and find_spec(of.package)]
    return sorted(found, key=lambda name: (name != DEFAULT, name))


def why(name: str) -> str:
    """Why a bundle runs on that runtime, and what else is installed."""
    others = [other for other in of_files() if other != name]
    if name == DEFAULT:
        told = f"{' and '.join(others)} can be asked for by --runtime" if others else "no other is installed"
        return f"the default, which runs every bundle; {told}"
    return f"as asked for by --runtime; the default is {DEFAULT}"


def load(name: str) -> type[Runtime]:
    """The runtime of a name.

    Raises:
        UnknownName: there is none, with the near names.
    """
    classes = _classes()
    if name not in classes:
        raise UnknownName("runtime", name, classes)
    return classes[name]


def _classes() -> dict[str, type[Runtime]]:
    """Every file of this folder that defines a runtime; none imports its package before it is activated."""
    for info in iter_modules(__path__):
        import_module(f"{__name__}.{info.name}")
    return {each.name: each for each in _derived(Runtime) if each.__module__.startswith(__name__)}


def _derived(of: Any) -> Iterator[type[Runtime]]:  # Any: mypy takes no abstract class where a class is asked for
    for each in of.__subclasses__():
        yield each
        yield from _derived(each)
