"""E2M1, the 4-bit float of OCP MX and ONNX's FLOAT4E2M1: a sign, two bits of exponent, one of mantissa; no NaN."""

from __future__ import annotations

import ml_dtypes
import numpy as np

LARGEST = 6.0
LEVELS = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)  # by code; 8 is -0


def encode(values: np.ndarray) -> np.ndarray:
    """fp32 -> uint8 codes: to nearest, ties to the even code, beyond 6 to 6; minus zero is zero."""
    rounded = np.clip(values, -LARGEST, LARGEST).astype(ml_dtypes.float4_e2m1fn)
    codes = rounded.view(np.uint8)
    return np.where(codes == 8, np.uint8(0), codes)
