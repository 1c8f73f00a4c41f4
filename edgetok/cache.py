"""The user's cache folder: what was made from a bundle for one machine, under the bundle's id."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from edgetok.errors import OutputError


def cache_folder() -> Path:
    """Where lowered forms are kept: EDGETOK_CACHE, or the user's cache folder."""
    if own := os.environ.get("EDGETOK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetok"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made now where it is not there: whole or not at all, also when two processes make it at once.

    Args:
        folder: inside the cache.
        make: fills an empty folder.

    Raises:
        OutputError: the cache cannot be written.
    """
    if folder.is_dir():
        return folder
    staging = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        make(staging)
        try:
            os.rename(staging, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}; set EDGETOK_CACHE to a folder that can"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
