"""The one form of a weight of few bits, whatever quantiser made it and whatever runs it.

    w[n, k] = sum over p of  scale[n, k // block, p] * codebook[n // (N / C), p, codes[n, k]]

One plane (P = 1) is the usual case: a code is looked up in a table of 2^bits levels and scaled per block of weights
that share an output channel. E2M1, NF4, integers and learnt codebooks differ in the table only. More planes give each
block more than a scale: with the table's second row all ones the second scale is an offset (integers with a zero point,
GGUF's Q4_1), and with a row for each bit of the code the weight is a sum of scaled bits (ELUTQ).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgetok.errors import UsageError

BITS = (2, 3, 4, 8)
SCALE_DTYPES = ("float32", "float16", "float8_e4m3fn", "float8_e8m0fnu")


@dataclass(frozen=True)
class Weight:
    """A matrix (N outputs, K inputs).

    Attributes:
        codes: (N, K) uint8, each below 2^bits.
        bits: of a code: 2, 3, 4 or 8.
        codebook: (C, P, 2^bits) fp32: one for all outputs (C = 1), or for each N / C of them.
        scales: (N, G, P) fp32, fp16, E4M3 or E8M0, one for each block of weights, G = ceil(K / block).
        block: how many weights along K share a scale, a multiple of 8; the last block may be short.
        global_scale: multiplies all scales, in fp32.
    """

    codes: np.ndarray
    bits: int
    codebook: np.ndarray
    scales: np.ndarray
    block: int
    global_scale: float = 1.0

    def __post_init__(self) -> None:
        outputs, inputs = self.codes.shape
        groups = -(-inputs // self.block)
        tables, planes, levels = self.codebook.shape
        problems = {
            f"{self.bits} bits": self.bits in BITS,
            f"a block of {self.block}": self.block > 0 and self.block % 8 == 0,
            f"{levels} levels for {self.bits} bits": levels == 2**self.bits,
            f"{tables} codebooks for {outputs} outputs": outputs % tables == 0,
            f"scales {self.scales.shape} for {groups} blocks": self.scales.shape == (outputs, groups, planes),
            f"scales in {self.scales.dtype}": self.scales.dtype.name in SCALE_DTYPES,
            f"codes in {self.codes.dtype}": self.codes.dtype == np.uint8,
            f"codebook in {self.codebook.dtype}": self.codebook.dtype == np.float32,
        }
        for problem, right in problems.items():
            if not right:
                raise UsageError(f"no weight ({outputs}, {inputs}) has {problem}")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)"""
        return self.codes.shape

    @cached_property
    def wide_scales(self) -> np.ndarray:
        """(N, G, P) fp32, times the global scale."""
        return self.scales.astype(np.float32) * np.float32(self.global_scale)

    def dequantise(self) -> np.ndarray:
        """(N, K) fp32: each product rounded once, the planes added in their order."""
        outputs, inputs = self.shape
        tables, planes, levels = self.codebook.shape
        table = np.arange(outputs)[:, None] // (outputs // tables) * levels  # of each output's codebook
        rows = np.ascontiguousarray(self.codebook.transpose(1, 0, 2)).reshape(planes, tables * levels)
        scales = np.repeat(self.wide_scales, self.block, axis=1)[:, :inputs]
        result = np.zeros((outputs, inputs), np.float32)
        for plane in range(planes):
            result += rows[plane][table + self.codes] * scales[..., plane]
        return result

    @property
    def bits_per_weight(self) -> float:
        """What is stored, codebooks and scales included."""
        stored = self.codes.size * self.bits + 8 * self.scales.nbytes
        if self.bits < 8:  # the levels of 8 bits are the codes themselves
            stored += 8 * self.codebook.nbytes
        return stored / self.codes.size


def padded(matrix: np.ndarray, block: int) -> np.ndarray:
    """(N, K) -> (N, G, block): blocks of a row, the last one filled up with zeros."""
    outputs, inputs = matrix.shape
    rest = -inputs % block
    return np.pad(matrix, ((0, 0), (0, rest))).reshape(outputs, -1, block)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """(N, K) uint8 below 2^bits, K a multiple of 8 -> (N, K bits / 8) uint8: a row's codes one behind the other, the
    lowest bit first, as ONNX packs INT4 and INT2."""
    stream = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(stream.reshape(len(codes), -1), axis=1, bitorder="little")


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """(N, K bits / 8) uint8 -> (N, K) uint8: what `pack` was given."""
    stream = np.unpackbits(packed, axis=1, bitorder="little").reshape(len(packed), -1, bits)
    return (stream << np.arange(bits, dtype=np.uint8)).sum(axis=-1, dtype=np.uint8)
