"""edgetok on a device: an environment of its own, from a wheel that is carried along.

    ~/.local/share/edgetok/envs/0.1.0-3f2a9c01d7e4/    one per edgetok, by its files, and per set of wheels carried

The environment sees the system's packages, so JetPack's TensorRT and its ONNX Runtime are found, and it lies in the
user's home, so nothing of the device is written over: numpy and ONNX Runtime, where the device has them, are held
at their versions. No torch, no root. The C++ operators come along from a machine of the same kind, and are built there
otherwise, if it has a compiler.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgetok import __version__
from edgetok.errors import RemoteError
from edgetok.native import status
from edgetok.remote.connection import Answer, Connection
from edgetok.remote.transfer import Blob, Tell, send
from edgetok.remote.wheel import own_wheel

_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)


@dataclass(frozen=True)
class Installation:
    """An environment that is ready.

    Attributes:
        name: of its folder there.
        fresh: it was made just now.
        others: environments of other edgetoks that are there, and were left alone.
        machine: the device's architecture, as "aarch64".
    """

    name: str
    fresh: bool
    others: tuple[str, ...]
    machine: str


def install(connection: Connection, wheels: Path | None, tell: Tell) -> Installation:
    """Make sure that this edgetok is on a device.

    Args:
        connection: to it.
        wheels: a folder of wheels to install from, without an index; None leaves that to the device's pip.
        tell: told what is being done.

    Raises:
        RemoteError: the login is root's, no wheel fits, the disk is full, or pip fails there.
    """
    found = connection.ask("probe")
    if found["uid"] == 0:
        raise RemoteError(
            f"{connection.name} logs in as root: edgetok installs nothing as root. Log in as a user, as in ssh://me@..."
        )
    shared = _can_share_operators(found)
    wheel = own_wheel(native=shared)
    carried = {} if wheels is None else _fitting(wheels, found, connection.name)
    blobs = {path.name: Blob(path) for path in carried}
    python = ".".join(found["python"].split(".")[:2])
    parts = [python, wheel.digest, *(f"{name} {blob.digest}" for name, blob in sorted(blobs.items()))]
    name = f"{__version__}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"
    others = tuple(each for each in found["environments"] if each != name)
    if name in found["environments"]:
        return Installation(name, False, others, found["machine"])
    blobs[wheel.name] = Blob(wheel.packed())
    send(connection, list(blobs.values()), tell)
    request = {
        "name": name,
        "wheel": wheel.name,
        "wheels": {each: blob.digest for each, blob in blobs.items()},
        "requirements": wheel.requirements,
        "runtime": wheel.runtime,
        "carried": wheels is not None,
        "build": not shared,
        "remedy": _remedy(wheels, found),
    }

    def heard(answer: Answer, _: IO[bytes]) -> None:
        tell(f"installing on {connection.name}: {answer.get('progress', '')}", 0.0)

    if others:
        tell(f"on {connection.name} there is edgetok {_versions(others)}, left as they are", 0.0)
    answer = connection.ask("install", request, heard=heard)
    return Installation(name, bool(answer["fresh"]), others, found["machine"])


def _versions(environments: Sequence[str]) -> str:
    """Which edgetoks those environments hold."""
    versions = dict.fromkeys(name.rpartition("-")[0] for name in environments)
    return ", ".join(f"{each} with other files" if each == __version__ else each for each in versions)


def _can_share_operators(found: dict[str, Any]) -> bool:
    """Whether the C++ operators that were built here can be loaded there."""
    import platform

    return status().state == "ok" and found["machine"] == platform.machine()


def _fitting(folder: Path, found: dict[str, Any], device: str) -> list[Path]:
    """The wheels of a folder that the device takes.

    Raises:
        RemoteError: there is no such folder, or a package has wheels for other machines only.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise RemoteError(f"{folder} holds no wheels: {_download(found)}")
    by_package: dict[str, list[Path]] = {}
    for path in wheels:
        parts = _WHEEL.fullmatch(path.name)
        if parts is None:
            raise RemoteError(f"{path} is not named as a wheel is: name-version-python-abi-platform.whl")
        package = re.sub(r"[-_.]+", "-", parts["name"]).lower()
        kept = by_package.setdefault(package, [])
        if _fits(parts, found):
            kept.append(path)
    wrong = sorted(package for package, kept in by_package.items() if not kept)
    if wrong:
        raise RemoteError(
            f"{folder}: the wheels of {', '.join(wrong)} are for other machines, and {device} is {found['machine']} "
            f"with Python {found['python']}: {_download(found)}"
        )
    return [path for kept in by_package.values() for path in kept]


def _fits(wheel: re.Match[str], found: dict[str, Any]) -> bool:
    """Whether architecture and Python are right; how old a C library may be is left to pip."""
    major, minor = map(int, found["python"].split(".")[:2])
    built_for = re.compile(rf"any|(?:many)?linux.*_{re.escape(found['machine'])}")
    machine = any(map(built_for.fullmatch, wheel["platform"].split(".")))
    stable = "abi3" in wheel["abi"].split(".")
    for tag in wheel["python"].split("."):
        version = re.fullmatch(r"(?:cp|py)(\d)(\d*)", tag)
        if version is None or int(version[1]) != major:
            continue
        least = int(version[2] or 0)
        exact = tag.startswith("cp") and not stable and wheel["abi"] != "none"
        if least == minor or (least < minor and not exact):
            return machine
    return False


def _remedy(wheels: Path | None, found: dict[str, Any]) -> str:
    if wheels is not None:
        return f"a wheel is missing in {wheels}, or does not fit: {_download(found)}"
    return f"a device without an index takes wheels from --wheels DIR: {_download(found)}"


def _download(found: dict[str, Any]) -> str:
    """How wheels for a device are fetched."""
    major, minor = found["python"].split(".")[:2]
    return (
        f"pip download --only-binary=:all: --python-version {major}.{minor} "
        f"--platform manylinux_2_28_{found['machine']} --platform manylinux2014_{found['machine']} -d DIR, with "
        "edgetok's requirements and onnxruntime"
    )
