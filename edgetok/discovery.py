"""What is found by its file name: techniques and quantisers.

`exporters/cls_topk.py` is the technique `cls-topk`, and the constant TECHNIQUE in it says what it is.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from edgetok.errors import UnknownName

T = TypeVar("T")


def names(package: str) -> list[str]:
    """What a package holds, its helpers left out; nothing is imported."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    return sorted(p.stem.replace("_", "-") for p in Path(folder).glob("*.py") if not p.stem.startswith("_"))


def load(package: str, kind: str, name: str, cls: type[T]) -> T:
    """The constant of a file: TECHNIQUE for the kind "technique".

    Raises:
        UnknownName: there is no such file.
    """
    known = names(package)
    if name not in known:
        raise UnknownName(kind, name, known)
    found = getattr(import_module(f"{package}.{name.replace('-', '_')}"), kind.upper(), None)
    assert isinstance(found, cls), f"{package}, {name}: the file must end with {kind.upper()} = {cls.__name__}(...)"
    return found
