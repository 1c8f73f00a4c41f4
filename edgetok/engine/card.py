"""Which card this machine has, asked of NVIDIA's driver; libcuda comes with it, and nothing else is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from edgetok.errors import DeviceError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Card:
    """The first card.

    Attributes:
        name: as the driver gives it.
        capability: compute capability, "8.6".
    """

    name: str
    capability: str


def here() -> Card:
    """The card of this machine.

    Raises:
        DeviceError: there is no driver, or it has no card.
    """
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        raise DeviceError(
            f"no NVIDIA driver on this machine: {LIBRARY} cannot be loaded; run it on a machine with a card, "
            "or use --runtime onnxruntime"
        ) from None
    name, major, minor, device = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    calls: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, 256, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    for call in calls:
        if code := call():
            raise DeviceError(f"NVIDIA's driver gives no card (CUDA error {code}): nvidia-smi says more")
    return Card(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
