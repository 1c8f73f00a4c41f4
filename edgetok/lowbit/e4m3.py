"""E4M3, the 8-bit float: its levels by code, and the cast to it. ONNX's FLOAT8E4M3FN, which has no infinity."""

from __future__ import annotations

import ml_dtypes
import numpy as np

LARGEST = 448.0
LEVELS = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # NaN at 0x7F and 0xFF


def cast(values: np.ndarray) -> np.ndarray:
    """fp32 -> float8_e4m3fn: to nearest, ties to the even code, beyond 448 to 448."""
    return np.clip(values, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn)
