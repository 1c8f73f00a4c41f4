"""CTranslate2's model.bin, read without that package: named tensors one behind the other.

    u32 version, string spec, u32 revision, u32 count, then for each tensor
    string name, u8 rank, u32 dims[rank], u8 type, u32 bytes, its bytes

and behind them other names for some. A string is a u16 length and that many bytes, the last of them 0. Nothing is
allocated for a size that the file cannot hold.
"""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path

import numpy as np

from edgetok.errors import CaptureError, SourceError

VERSION = 6
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # by the number in the file


class Ctranslate2File:
    """An open model.bin.

    Attributes:
        name: of the file.
        spec: what kind of model it holds: "WhisperSpec".
        tensors: by name; views of the file.
    """

    def __init__(self, path: Path):
        self.name = path.name
        try:
            with path.open("rb") as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # a file of no bytes cannot be mapped
            raise SourceError(f"{path.name} cannot be read: {error}") from error
        self._place = 0
        try:
            self.spec, self.tensors = self._read()
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise SourceError(
                f"{path.name} is not a model of CTranslate2, or is damaged at byte {self._place}: {error}"
            ) from error

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor of so many axes.

        Raises:
            SourceError: it is not there, or has more or fewer.
        """
        if name not in self.tensors:
            raise SourceError(f"{self.name} has no {name}")
        found = self.tensors[name].shape
        if len(found) != rank:
            raise SourceError(f"{self.name}: {name} is {found}, expected are {rank} axes")
        return found

    def weight(self, name: str, *shape: int) -> np.ndarray:
        """A weight as fp32.

        Raises:
            SourceError: it is not there, or has another shape.
            CaptureError: it is quantised.
        """
        if self.shape(name, len(shape)) != shape:
            raise SourceError(f"{self.name}: {name} is {self.tensors[name].shape}, expected is {shape}")
        found = self.tensors[name]
        if found.dtype.kind != "f":
            raise CaptureError(f"{self.name}: {name} is quantised to {found.dtype}; accepted are float32 and float16")
        return found.astype(np.float32)

    def _read(self) -> tuple[str, dict[str, np.ndarray]]:
        (version,) = self._numbers("<I")
        if version != VERSION:
            raise ValueError(f"version {version}, known is {VERSION}")
        spec = self._string()
        _, count = self._numbers("<II")
        return spec, dict(self._tensor() for _ in range(count))

    def _tensor(self) -> tuple[str, np.ndarray]:
        name = self._string()
        (rank,) = self._numbers("<B")
        shape = self._numbers(f"<{rank}I")
        kind, size = self._numbers("<BI")
        if kind >= len(TYPES) or prod(shape) * np.dtype(TYPES[kind]).itemsize != size:
            raise ValueError(f"{name} of type {kind} and shape {shape} in {size} bytes")
        values = np.frombuffer(self._content, TYPES[kind], prod(shape), self._place).reshape(shape)
        self._place += size
        return name, values

    def _string(self) -> str:
        (length,) = self._numbers("<H")
        if length > len(self._content) - self._place:
            raise ValueError("a name runs over its end")
        text = self._content[self._place : self._place + length]
        self._place += length
        return text.rstrip(b"\0").decode()

    def _numbers(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(layout, self._content, self._place)
        self._place += struct.calcsize(layout)
        return found
