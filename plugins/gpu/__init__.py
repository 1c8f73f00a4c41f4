"""The operators on NVIDIA GPUs: Triton kernels, one operator per file, named as the operator is.

A file ends with `launches`, which takes what the operator's `reference` takes, and gives what is launched for that and
what it fills in; `run` launches it. Every launch is one kernel, so that it can be compiled ahead of time (`ptx`) and
launched by anything that knows the driver. Triton's interpreter (TRITON_INTERPRET=1) runs the same kernels on a CPU.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as Triton 3.9 does by itself, with a warning
# The PTX version that each compute capability's oldest supported driver reads: CUDA 12.6 (JetPack 6) up to 9.0, CUDA
# 12.8 for the first Blackwells, CUDA 13 for Thor.
PTX = {75: 85, 80: 85, 86: 85, 87: 85, 89: 85, 90: 85, 100: 87, 110: 90, 120: 87}
EVEN = 16  # bytes of the widest load; sizes that are multiples of it, too, let Triton read so many at once
TYPES = {
    "float32": "fp32", "float16": "fp16", "bfloat16": "bf16",
    "int64": "i64", "int32": "i32", "int16": "i16", "uint8": "u8",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One kernel on its way to the device.

    Attributes:
        kernel: the Triton function.
        grid: how many programs, along up to three axes.
        arguments: tensors and numbers by the names of the kernel's parameters, in their order.
        constants: what the kernel is compiled for.
        warps: of 32 threads in a program.
        stages: of the pipeline that loads ahead.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, torch.Tensor | int | float]
    constants: dict[str, int | float]
    warps: int = 4
    stages: int = 2

    def __call__(self) -> None:
        """Put it on the current stream."""
        if all(self.grid):
            self.kernel[self.grid](**self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages)

    def ptx(self, sm: int) -> str:
        """The kernel as PTX for a compute capability of `PTX`, such as 87 for 8.7; no GPU is needed.

        Raises:
            ValueError: a tensor of a type that kernels do not take.
        """
        return str(self.compiled(sm).asm["ptx"])

    def compiled(self, sm: int, stages: int | None = None, even: frozenset[str] | None = None) -> Any:
        """What Triton makes of it ahead of time; fewer stages take less shared memory (`metadata.shared`).

        `even` is what it may rely on; without it, what is even here.
        """
        from triton import compile
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        signature = {name: _type(value) for name, value in self.arguments.items()}
        even = self.even() if even is None else even
        source = ASTSource(
            self.kernel, signature | dict.fromkeys(self.constants, "constexpr"),
            {(self.kernel.arg_names.index(name),): value for name, value in self.constants.items()},
            {(self.kernel.arg_names.index(name),): [["tt.divisibility", EVEN]] for name in sorted(even)},
        )  # fmt: skip
        options = {"num_warps": self.warps, "num_stages": stages or self.stages, "ptx_version": PTX[sm]}
        return compile(source, target=GPUTarget("cuda", sm, 32), options=options)

    def even(self) -> frozenset[str]:
        """Arguments that are multiples of `EVEN`, which Triton finds out by itself where it compiles as it launches.

        Without this, a kernel that was compiled ahead reads every value by itself. A tensor counts if its rows are
        whole 16 bytes: any runtime's buffers begin at such an address, and so do parts of one between rows.
        """
        return frozenset(name for name, value in self.arguments.items() if _even(value))


def names() -> list[str]:
    """The operators that have kernels; nothing is imported."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """The kernels of an operator."""
    return importlib.import_module(f"{__name__}.{name}")


def launches(name: str, sm: int) -> Callable[..., tuple[list[Launch], Any]]:
    """`launches` of an operator for a compute capability of `PTX`; some take other tiles where registers spill."""
    made: Callable[..., Any] = load(name).launches
    return functools.partial(made, sm=sm) if "sm" in inspect.signature(made).parameters else made


def run(name: str) -> Callable[..., Any]:
    """An operator as a function of tensors on a GPU, with the parameters of its `reference`, and its tiles by name."""

    def launched(*arguments: Any, **tiles: int) -> Any:
        made, outputs = launches(name, _capability(arguments[0]))(*arguments, **tiles)
        for launch in made:
            launch()
        return outputs if len(outputs) > 1 else outputs[0]

    return launched


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that holds so many, at least what tl.dot takes."""
    return max(least, 1 << max(0, size - 1).bit_length())


def tiles(size: int, tile: int) -> int:
    """How many tiles cover so many."""
    return -(-size // tile)


def _capability(tensor: torch.Tensor) -> int:
    """Of the card that a tensor lies on, as 87; in the interpreter, which has none, that of most cards."""
    import torch

    major, minor = torch.cuda.get_device_capability(tensor.device) if tensor.is_cuda else (8, 0)
    return 10 * major + minor


def _even(value: torch.Tensor | int | float) -> bool:
    if isinstance(value, float):
        return False
    if isinstance(value, int):
        return value % EVEN == 0
    return value.dim() > 0 and value.shape[-1] * value.element_size() % EVEN == 0


def _type(value: torch.Tensor | int | float) -> str:
    if isinstance(value, int):
        return "i32"
    if isinstance(value, float):
        return "fp32"
    name = str(value.dtype).removeprefix("torch.")
    if name not in TYPES:
        raise ValueError(f"kernels take no {name}: {', '.join(TYPES)} are accepted")
    return "*" + TYPES[name]
