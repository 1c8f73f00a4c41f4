"""What a technique is: it says which tokens go, for one block at a time; the view does the rest.

A technique is a file in exporters/, found by its name, that ends with `TECHNIQUE = Technique(...)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.errors import UnknownName, UsageError
from edgetok.schedule import Schedule

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.view.site import Site


@dataclass(frozen=True)
class Selection:
    """Which tokens of a block stay.

    Attributes:
        order: (B, N) int64: the tokens that stay, in their new order, then the r that go.
        destination: (B, r) int64: for each that goes, the new row that it is merged into, or, where tokens are
            dropped, the row that stands in for it when the output is restored.
        merge: whether the tokens that go are averaged into their destination, or dropped.
        proportional: whether attention counts a token as often as the tokens merged into it, from here on.
    """

    order: ir.Value
    destination: ir.Value
    merge: bool = True
    proportional: bool = True


@dataclass(frozen=True)
class State:
    """What the PyTorch reference of a technique sees behind the attention of one block.

    Attributes:
        hidden: (B, N, C) the residual stream.
        size: (B, N, 1) how many tokens each stands for; 0 for padding.
        keys: (B, h, N, d) of this block's attention.
        prefix: number of leading tokens that are no patches (CLS, registers).
        block: number of this block.
        blocks: how many blocks the model has.
    """

    hidden: torch.Tensor
    size: torch.Tensor
    keys: torch.Tensor
    prefix: int
    block: int
    blocks: int


@dataclass(frozen=True)
class Technique:
    """One way of reducing tokens.

    Attributes:
        summary: one line for `edgetok techniques`.
        paper: title, link and section.
        config: a frozen dataclass with the technique's own options.
        select: the graph form; (site, config) -> Selection.
        reference: the same in plain PyTorch; (state, count of tokens that go, config) -> (order, destination).
        proportional: whether attention is proportional under a config; (config) -> bool.
        merge: whether tokens are averaged into others, or dropped.
    """

    summary: str
    paper: str
    config: type
    select: Callable[[Site, Any], Selection]
    reference: Callable[[State, int, Any], tuple[torch.Tensor, torch.Tensor]]
    proportional: Callable[[Any], bool]
    merge: bool = True


@dataclass(frozen=True)
class Spec:
    """What the user asked for: `tome:r=16,layers=2-11`.

    Attributes:
        name: of the technique.
        schedule: how many tokens go in which block.
        config: the technique's own options.
    """

    name: str
    schedule: Schedule
    config: Any

    def __str__(self) -> str:
        """The canonical spelling, which goes into the manifest."""
        options = self.schedule.options() + _options(self.config)
        return self.name + (":" + ",".join(options) if options else "")


def names() -> list[str]:
    """The techniques' names; nothing is imported."""
    spec = find_spec("edgetok.exporters")
    assert spec is not None and spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    return sorted(p.stem.replace("_", "-") for p in Path(folder).glob("*.py") if not p.stem.startswith("_"))


def load(name: str) -> Technique:
    """The technique of a name.

    Raises:
        UnknownName: there is none.
    """
    if name not in names():
        raise UnknownName("technique", name, names())
    technique = import_module(f"edgetok.exporters.{name.replace('-', '_')}").TECHNIQUE
    assert isinstance(technique, Technique), f"exporters/{name}.py must end with TECHNIQUE = Technique(...)"
    return technique


def parse(text: str) -> Spec:
    """Read `NAME:key=value,...`.

    Raises:
        UnknownName: no such technique or option.
        UsageError: a value that the option does not take.
    """
    name, _, rest = text.partition(":")
    technique = load(name)
    given: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise UsageError(f"{text!r}: {item!r} is no option; write key=value, as in '{name}:r=16,layers=2-11'")
        if key in given:
            raise UsageError(f"{text!r}: {key!r} is given twice")
        given[key] = value
    known = [f.name for cls in (Schedule, technique.config) for f in dataclasses.fields(cls)]
    for key in given:
        if key not in known:
            raise UnknownName(f"option of {name!r}", key, known)
    own = {f.name for f in dataclasses.fields(technique.config)}
    schedule = Schedule.parse({key: value for key, value in given.items() if key not in own})
    config = technique.config(
        **{key: _typed(technique.config, key, value) for key, value in given.items() if key in own}
    )
    return Spec(name, schedule, config)


def _typed(config: type, key: str, text: str) -> object:
    """An option's text as the type of its default."""
    default: Any = next(f.default for f in dataclasses.fields(config) if f.name == key)
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise UsageError(f"option {key}={text!r}: accepted are true and false")
        return text == "true"
    try:
        value: object = type(default)(text)
        return value
    except ValueError:
        kind = type(default).__name__
        raise UsageError(f"option {key}={text!r}: accepted is of type {kind}, such as {default}") from None


def _options(config: Any) -> list[str]:
    """The options of a config that differ from their defaults."""
    pairs = [(f.name, getattr(config, f.name), f.default) for f in dataclasses.fields(config)]
    return [f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v, default in pairs if v != default]
