"""Named arrays as the bytes of a safetensors file, and back. (safetensors.numpy cannot read bfloat16.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgetok.errors import BundleError

if TYPE_CHECKING:
    import numpy as np

_DTYPES = {
    "BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16",
}  # fmt: skip


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Serialise arrays; the order of the mapping does not matter."""
    import numpy as np
    from safetensors.numpy import save

    # safetensors writes the memory as it lies: it must lie in C order
    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """Read arrays, in the order of their names; they are views of `data`.

    Raises:
        BundleError: the bytes are no safetensors file, or of a type that has no numpy equivalent.
    """
    import ml_dtypes  # noqa: F401  (gives numpy its "bfloat16")
    import numpy as np
    from safetensors import SafetensorError, deserialize

    arrays = {}
    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise BundleError(f"not a safetensors file: {error}") from None
    for name, entry in sorted(entries, key=lambda pair: pair[0]):  # safetensors gives them in a random order
        if entry["dtype"] not in _DTYPES:
            raise BundleError(f"array {name!r} has the type {entry['dtype']}; accepted: {', '.join(_DTYPES)}")
        arrays[name] = np.frombuffer(entry["data"], np.dtype(_DTYPES[entry["dtype"]])).reshape(entry["shape"])
    return arrays
