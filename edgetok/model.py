from __future__ import annotations
from dataclasses import dataclass
from typing import Any
@dataclass(frozen=True)
class TensorSpec:
    name: str
    dtype: str
    shape: tuple
    preprocess: Any = None
@dataclass(frozen=True)
class Origin:
    kind: str
    name: str
    sha256: str | None
    licence: str | None
@dataclass
class Captured:
    model: Any
    inputs: tuple
    outputs: tuple
    origin: Origin
    reference: Any
    example: dict
