"""The C++ operators: where their library is, and whether it may be loaded.

Installing builds the library where there is a compiler (native_build.py), and writes into it the digest of the sources
it was made from. One that other sources made is never loaded: its numbers could be wrong without a word.
"""

import ctypes
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

LIBRARY = "libedgetok.so"
# In place of functions of the same name
IN_PLACE = {
    "AgglomerativeClusters", "BipartiteMatch", "BlockSparseAttention", "MergeTokens", "NearestCode", "Snake",
    "SumTokens", "TokenSparseAttention",
}  # fmt: skip
AGAIN = "with g++ on PATH: pip install --force-reinstall --no-deps edgetok, or -e . in a checkout"

_beside, _inside = (folder / "plugins" / "native" for folder in (Path(__file__).parent.parent, Path(__file__).parent))
FOLDER = _inside if _inside.is_dir() else _beside  # as the packages lie in a wheel, or in a checkout


@dataclass(frozen=True)
class Native:
    """What was found.

    Attributes:
        state: ok; absent: not built; stale: built from other sources; broken: it cannot be loaded.
        detail: what was found, for people.
        isa: the instruction set in use: avx512, avx2, neon or portable.
    """

    state: Literal["ok", "absent", "stale", "broken"]
    detail: str
    isa: str | None = None


def digest(folder: Path) -> str:
    """The sha256 of a folder's C++ sources, names included."""
    result = hashlib.sha256()
    for file in sorted(file for kind in ("*.h", "*.cpp") for file in folder.glob(kind)):
        content = file.read_bytes()
        result.update(f"{file.name} {len(content)}\n".encode() + content)
    return result.hexdigest()


def library() -> Path | None:
    """The library, if it was built from the installed sources and can be loaded."""
    return FOLDER / LIBRARY if status().state == "ok" else None


def status() -> Native:
    """Look at the installed library."""
    return examine(FOLDER)


@cache
def examine(folder: Path) -> Native:
    """Look at a folder's library; it is loaded only if the folder's sources made it."""
    path = folder / LIBRARY
    if not path.is_file():
        return Native("absent", f"{LIBRARY} was not built: low-bit weights run in fp32, tokens merge more slowly")
    mark = re.search(rb"edgetok sources sha256 ([0-9a-f]{64})", path.read_bytes())
    made_from, there = mark[1].decode() if mark else "unknown sources", digest(folder)
    if made_from != there:
        told = f"{LIBRARY} was built from other sources ({made_from[:12]}, not {there[:12]}): not loaded"
        return Native("stale", told)
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.edgetok_isa.restype = ctypes.c_char_p
        isa = loaded.edgetok_isa().decode()
    except (OSError, AttributeError) as error:
        return Native("broken", f"{LIBRARY} cannot be loaded: {error}")
    return Native("ok", f"LutMatMul, {', '.join(sorted(IN_PLACE))} by {isa}", isa)
