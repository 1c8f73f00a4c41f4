"""Tokens as a file: an .npz with the ids, what the decoder needs beside them, and which bundle made them."""

from __future__ import annotations

import os
import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgetok.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np

MOST_NUMBERS = 2**28  # of one array: 2 GiB of ids
EXTENT, BUNDLE = "extent", "bundle"


@dataclass(frozen=True)
class Tokens:
    """The tokens of one signal.

    Attributes:
        arrays: `ids` (pieces, N) or (pieces, N, L) int64, and what else the decoder takes, a row for each piece.
        extent: sizes of the signal's axes behind the channels: (height, width), (samples,), (frames, height, width).
        bundle: the id of the bundle that made them.
        note: what was done to the file that they were made of, for the user.
    """

    arrays: dict[str, np.ndarray]
    extent: tuple[int, ...]
    bundle: str
    note: str = ""

    @property
    def count(self) -> int:
        """How many tokens there are."""
        ids = self.arrays["ids"]
        return int(ids.shape[0] * ids.shape[1])


def write(tokens: Tokens, file: Path) -> None:
    """Write all of it or nothing.

    Raises:
        OutputError: it is no .npz, or cannot be written.
    """
    import numpy as np

    if file.suffix != ".npz":
        raise OutputError(f"{file}: tokens are written as .npz; name the file {file.with_suffix('.npz').name}")
    whole = {**tokens.arrays, EXTENT: np.array(tokens.extent, np.int64), BUNDLE: np.array(tokens.bundle)}
    staging = file.with_name(f".{file.name}.tmp-{secrets.token_hex(4)}")
    try:
        with staging.open("xb") as stream:
            np.savez_compressed(stream, **whole)  # type: ignore[arg-type]  # numpy's stub, as in edgetok/cli/run.py
        os.replace(staging, file)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}; nothing was left behind") from error
    finally:
        staging.unlink(missing_ok=True)


def read(file: Path) -> Tokens:
    """Read what `write` wrote; every array's size is checked before it is made.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found = {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
    except FileNotFoundError:
        raise InputError(f"{file} is missing: there is no such file") from None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{file} cannot be read as tokens, edgetok tokenize writes them: {error}") from error
    if absent := {"ids", EXTENT, BUNDLE} - set(found):
        raise InputError(f"{file} holds no {' and no '.join(sorted(absent))}: edgetok tokenize writes tokens")
    extent, bundle = found.pop(EXTENT), found.pop(BUNDLE)
    if extent.dtype.kind not in "iu" or not 1 <= extent.size <= 3 or (extent < 1).any() or bundle.dtype.kind != "U":
        raise InputError(f"{file}: its extent or its bundle is none: edgetok tokenize writes tokens")
    if len({array.shape[:1] for array in found.values()}) != 1 or not found["ids"].size:
        raise InputError(f"{file} holds no ids, or arrays of different numbers of pieces")
    return Tokens(found, tuple(extent.ravel().tolist()), str(bundle))


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    from numpy.lib import format as npy

    with archive.open(name) as member:
        shape, kind = _header(member)
    numbers = 1
    for size in shape:
        numbers *= size
    if numbers > MOST_NUMBERS or kind.hasobject or kind.itemsize > 1024:
        raise ValueError(f"{name} would hold {numbers} numbers of {kind}: at most {MOST_NUMBERS} are read")
    with archive.open(name) as member:
        array: np.ndarray = npy.read_array(member, allow_pickle=False)
    return array


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    from numpy.lib import format as npy

    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}, for arrays of records")
    shape, _, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(member)
    return shape, kind
