"""edgetok's own kernels: not built yet."""

from __future__ import annotations

from pathlib import Path


def library() -> Path | None:
    return None


def digest() -> str | None:
    return None
