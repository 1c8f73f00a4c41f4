"""Devices that the user has given names, in ~/.config/edgetok/devices.toml.

    [nano]
    address = "ssh://me@nano.local"
    device = "jetson-orin-nano-jp62"    # the profile to run under there; "auto" where it is left out
    wheels = "~/wheels/nano"            # packages to install there, for a device without an index
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgetok.errors import UsageError
from edgetok.remote.address import SCHEME, Address

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Target:
    """A device to go to.

    Attributes:
        name: what it was asked for by, told in messages and reports.
        address: where it is.
        wheels: a folder of wheels to install there; None leaves packages to the device's own index.
    """

    name: str
    address: Address
    wheels: Path | None = None


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    device: str | None = None
    wheels: str | None = None


def devices_file() -> Path:
    """Where names are kept: edgetok/devices.toml in the user's configuration folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgetok" / "devices.toml"


def find(text: str, profiles: Collection[str], wheels: Path | None = None) -> Target | None:
    """What `--on TEXT` asks for.

    Args:
        text: an address, or a name.
        profiles: names of devices/, "cpu" and "auto" among them, which mean this machine.
        wheels: a folder of wheels, before the one that devices.toml names.

    Returns:
        None where it is no device behind ssh.

    Raises:
        UsageError: the address or the file is wrong.
    """
    if text.startswith(SCHEME):
        return Target(text, Address.parse(text), wheels)
    found = _read(devices_file(), profiles).get(text)
    return found if found is None or wheels is None else replace(found, wheels=wheels)


def _read(file: Path, profiles: Collection[str]) -> dict[str, Target]:
    if not file.is_file():
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    targets = {}
    for name, table in tables.items():
        if name in profiles:
            raise UsageError(f"{file}: [{name}] is the name of a profile, and means this machine; choose another")
        try:
            entry = _Entry.model_validate(table)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"])) or "its value"
            raise UsageError(f"{file}: [{name}]: {at}: {first['msg']}; it holds address, device and wheels") from error
        try:
            address = Address.parse(entry.address if entry.device is None else f"{entry.address}/{entry.device}")
        except UsageError as error:
            once = "the device is named once, in the address or beside it"
            raise UsageError(f"{file}: [{name}]: {error}; {once}") from error
        wheels = None if entry.wheels is None else Path(entry.wheels).expanduser()
        targets[name] = Target(name, address, wheels)
    return targets
