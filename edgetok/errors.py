"""Every error that edgetok raises on purpose.

    EdgetokError                    exit code 1
    ├── UsageError                  exit code 2: an option, a name or a value that edgetok does not take
    │   └── UnknownName             a misspelt technique, device, option ... with the near names
    ├── SourceError                 what was to be exported cannot be read, or must not be (pickles, paths outside)
    ├── CaptureError                the source was read, but could not be turned into a graph
    ├── Refusal                     a technique cannot be applied to this graph: node, reason and way out
    ├── ParityError                 the exported graph strays too far from the original
    ├── BuildError                  TensorRT builds no engine, or another one than was asked for
    ├── BundleError                 a bundle that is damaged, changed, incomplete or from a newer version
    ├── InputError                  inputs that do not fit the model
    ├── OutputError                 an output folder that exists, a full disk
    ├── DeviceError                 a device that is not this machine
    ├── RemoteError                 a device over SSH or a cluster that cannot be reached, or where something failed
    └── MissingPackage              an optional package is absent: what to install

A message says what was wrong, the value got, what is accepted and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class EdgetokError(Exception):
    """Something that the user can mend; shown as one line."""

    exit_code = 1


class UsageError(EdgetokError):
    """An option or a value that edgetok does not take."""

    exit_code = 2


_NEAR, _LISTED = 12, 40  # names in a message


class UnknownName(UsageError):
    """A name that does not exist, with the near ones.

    Args:
        kind: what was looked for, e.g. "technique".
        name: the name as it was given.
        known: all names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = [each for each in known if set(name.split("-")) <= set(each.split("-"))]  # orin-nx: jetson-orin-nx-16gb
        if not 0 < len(near) <= _NEAR:
            near = get_close_matches(name, known, n=3, cutoff=0.6)
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        told = f"known: {', '.join(known if not more else known[:_LISTED])}{more}"
        hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else told
        super().__init__(f"no {kind} {name!r}: {hint}")


class SourceError(EdgetokError):
    """What was to be exported cannot be read, or must not be."""


class CaptureError(EdgetokError):
    """The source was read, but could not be turned into a graph."""


class Refusal(EdgetokError):
    """A technique cannot be applied to this graph.

    Args:
        reason: what stands in the way.
        node: name of the node at fault.
        way_out: what the user can do instead.
    """

    def __init__(self, reason: str, *, node: str | None = None, way_out: str | None = None):
        self.reason, self.node, self.way_out = reason, node, way_out
        at = f"at node {node!r}: " if node else ""
        super().__init__(f"{at}{reason}" + (f"; {way_out}" if way_out else ""))


class ParityError(EdgetokError):
    """The exported graph strays too far from the original."""


class BuildError(EdgetokError):
    """TensorRT builds no engine, or another one than was asked for."""


class BundleError(EdgetokError):
    """A bundle that is damaged, changed, incomplete or from a newer version."""


class InputError(EdgetokError):
    """Inputs that do not fit the model."""


class OutputError(EdgetokError):
    """An output that cannot be written: it exists, or the disk is full."""


class DeviceError(EdgetokError):
    """A device that is not the machine one stands on."""


class RemoteError(EdgetokError):
    """A device over SSH or a cluster that cannot be reached, cannot be installed on, or where a run failed."""


class MissingPackage(EdgetokError):
    """An optional package is absent.

    Args:
        package: the package's name on the registry, with its version where it matters.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, purpose: str):
        self.package = package
        super().__init__(f"{purpose} needs {package!r}: pip install '{package}'")


def revived(kind: str, message: str) -> EdgetokError:
    """An error of another process under its own class, whose constructor may want other arguments."""
    cls: type[EdgetokError] = globals()[kind]
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    return error
