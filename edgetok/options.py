"""`NAME:key=value,...`: how techniques and quantisers are asked for on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from edgetok.errors import UnknownName, UsageError


def split(text: str, example: str) -> tuple[str, dict[str, str]]:
    """The name and the options of `NAME:key=value,...`.

    Args:
        text: what was given.
        example: options as they should be spelt, shown where they are not.

    Raises:
        UsageError: a part is no option, or one is given twice.
    """
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise UsageError(f"{text!r}: {item!r} is no option; write key=value, as in '{name}:{example}'")
        key = key.replace("-", "_")
        if key in given:
            raise UsageError(f"{text!r}: {key!r} is given twice")
        given[key] = value
    return name, given


def check_known(name: str, given: Iterable[str], configs: Iterable[type]) -> None:
    """Make sure that the options are fields of the dataclasses.

    Raises:
        UnknownName: one is not.
    """
    known = [key for config in configs for key in named(config)]
    for key in given:
        if key not in known:
            raise UnknownName(f"option of {name!r}", key, known)


def build(config: type, given: dict[str, str]) -> Any:
    """A dataclass of those options that are its fields.

    Raises:
        UsageError: a value that the option does not take.
    """
    own = named(config)
    return config(**{own[key].name: _typed(own[key], key, value) for key, value in given.items() if key in own})


def named(config: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass by their options' names: `global` is the field `global_`, for it is Python's word."""
    return {f.name.rstrip("_"): f for f in dataclasses.fields(config)}


def spelt(config: Any) -> list[str]:
    """The options of a dataclass that differ from their defaults."""
    pairs = [(key, getattr(config, f.name), f.default) for key, f in named(type(config)).items()]
    return [f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v, default in pairs if v != default]


def _typed(field: dataclasses.Field[Any], key: str, text: str) -> object:
    """An option's text as the type of its default."""
    default: Any = field.default
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
