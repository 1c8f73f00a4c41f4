"""One device per TOML file."""

if __name__ != "edgetok.devices":
    raise ImportError(f"import edgetok.devices, not {__name__}: it would be a second copy")

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetok.device import Device

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every device that has a profile."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name: str) -> "Device":
    """The profile of that name; a Jetson without its JetPack, as in "jetson-orin-nano", is that with the newest one.

    Raises:
        UnknownName: there is none.
    """
    from edgetok.device import Device
    from edgetok.errors import UnknownName

    known = names()
    if name not in known:
        releases = [each for each in known if each.rpartition("-jp")[0] == name]
        if not releases:
            raise UnknownName("device", name, known)
        name = releases[-1]
    return Device.read(_FOLDER / f"{name}.toml")


def load_all() -> "list[Device]":
    """Every profile, by name."""
    return [load(name) for name in names()]
