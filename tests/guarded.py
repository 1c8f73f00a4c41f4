"""Tensors between pages that nobody may touch: who reads or writes one element outside ends by a fault.

What Triton's interpreter loads and stores are plain addresses, so it stands in for compute-sanitizer.
"""

import ctypes
import mmap

import torch

PROTECTED, PRIVATE = 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(tensor: torch.Tensor, at_end: bool) -> torch.Tensor:
    """A copy with the tensor's strides that fills its memory up to a protected page; what lies in gaps is poison.

    Args:
        tensor: any on a CPU.
        at_end: whether its last element is the last before the page, or its first the first behind one.
    """
    extent = 1 + sum((count - 1) * stride for count, stride in zip(tensor.shape, tensor.stride(), strict=True))
    if not tensor.numel():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    size, page = extent * tensor.element_size(), mmap.PAGESIZE
    inside = -(-size // page) * page
    base = _libc.mmap(None, inside + 2 * page, mmap.PROT_READ | mmap.PROT_WRITE, PRIVATE, -1, 0)
    if base == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no memory")
    for border in (base, base + page + inside):
        if _libc.mprotect(border, page, PROTECTED):
            raise OSError(ctypes.get_errno(), "no protection")
    start = base + page + (inside - size if at_end else 0)
    memory = torch.frombuffer((ctypes.c_char * size).from_address(start), dtype=tensor.dtype)
    memory.fill_(float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)
    copy = memory.as_strided(tensor.shape, tensor.stride())
    once = tuple(slice(None) if stride else slice(1) for stride in tensor.stride())  # of what is spread, one
    copy[once].copy_(tensor[once])
    return copy
