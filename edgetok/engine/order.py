"""What an engine is built from, and the name under which the cache keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetok.errors import MissingPackage, Refusal, UsageError
from edgetok.files import sha256_of

if TYPE_CHECKING:
    import onnx

    from edgetok.model import TensorSpec

Builder = Literal["tensorrt", "tensorrt-rtx"]
PACKAGES = {  # that a builder may come from: NVIDIA's wheels, and JetPack's own
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # of TensorRT-RTX 1.7.1's enumeration
# Of NetworkDefinitionCreationFlag: types are the graph's own. Older versions than 10 want EXPLICIT_BATCH too.
FLAGS = ("STRONGLY_TYPED", "EXPLICIT_BATCH")
_WORKSPACE, _OF_WEIGHTS = 200e6, 3.0  # see Order.memory


@dataclass(frozen=True)
class Shapes:
    """The least, the usual and the largest shape of an input; what does not vary is the same in all three."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """One engine.

    Attributes:
        model: the lowered ONNX file.
        builder: which library builds it.
        capability: compute capability of the card, "8.6".
        shapes: of each input.
        card: the card's name, where the builder measures on it; TensorRT-RTX builds for a capability.
        library: the C++ plugin library that its plugin nodes need; None where TensorRT takes them by its decorators.
    """

    model: Path
    builder: Builder
    capability: str
    shapes: dict[str, Shapes]
    card: str = ""
    library: Path | None = None

    def key(self) -> str:
        """Of everything that the engine depends on: the builder's version, the glue of plugins and the graph too.

        A plugin's kernel is part of the graph.

        Raises:
            MissingPackage: the builder is not installed.
        """
        glue = sorted((Path(__file__).parents[1] / "tensorrt").glob("*.py"))
        data = sorted(self.model.parent.glob(f"{self.model.name}.*"))
        library = [self.library] if self.library else []
        facts = asdict(self) | {
            "model": sha256_of(self.model, *data),
            "library": sha256_of(*library, *glue),
            "flags": FLAGS,
            "version": builder_version(self.builder),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def memory(self) -> int:
        """Bytes of memory that the build is likely to take at its peak.

        TensorRT-RTX 1.7.1 took 0.30 GB for 34 MB of weights in fp16, 0.60 for 134 MB and 1.78 for 537 MB: 0.2 GB and
        three times the weights. TensorRT also runs the tactics that it times; nothing is known here of how much more
        that takes.
        """
        data = self.model.parent.glob(f"{self.model.name}.*")
        return int(_WORKSPACE + _OF_WEIGHTS * sum(file.stat().st_size for file in (self.model, *data)))


def order(
    model: Path,
    builder: Builder,
    capability: str,
    inputs: Iterable[TensorSpec],
    *,
    batch: tuple[int, int, int] = (1, 1, 1),
    card: str = "",
    library: Path | None = None,
) -> Order:
    """The order for a lowered graph.

    Args:
        model: the lowered ONNX file.
        builder: "tensorrt" or "tensorrt-rtx".
        capability: compute capability, "8.6".
        inputs: of the graph; their open first axis is the batch.
        batch: the least, the usual and the largest.
        card: the card's name, for TensorRT.
        library: the C++ plugin library, where the graph has plugin nodes for it.

    Raises:
        UsageError: sizes of a batch that do not grow.
        Refusal: the builder knows no such card, the graph has plugin nodes and it takes none, or an axis other than
            the first is open.
    """
    import onnx

    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise UsageError(f"batch {batch}: give the least, the usual and the largest, in this order, from 1")
    if builder == "tensorrt-rtx" and capability not in RTX_CAPABILITIES:
        raise Refusal(
            f"TensorRT-RTX builds for no compute capability {capability}: it knows {', '.join(RTX_CAPABILITIES)}",
            way_out="use TensorRT there",
        )
    if builder == "tensorrt-rtx" and (plugins := plugins_in(onnx.load(model, load_external_data=False))):
        raise Refusal(
            f"TensorRT-RTX takes no plugins, and {model.name} has nodes of {', '.join(plugins)}",
            way_out="lower the bundle without plugins",
        )
    shapes = {}
    for tensor in inputs:
        for axis, length in enumerate(tensor.shape):
            if axis and not isinstance(length, int):
                raise Refusal(
                    f"axis {axis} of the input {tensor.name!r}, {length!r}, is open, and an engine is built for sizes",
                    way_out="export it with --size or --length",
                )
        least, usual, most = (
            tuple(length if isinstance(length, int) else size for length in tensor.shape) for size in batch
        )
        shapes[tensor.name] = Shapes(least, usual, most)
    return Order(model, builder, capability, shapes, card, library)


def builder_version(builder: Builder) -> str:
    """The installed version of a builder, found without loading it.

    Raises:
        MissingPackage: it is not installed.
    """
    for package in PACKAGES[builder]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    raise MissingPackage("tensorrt" if builder == "tensorrt" else f"edgetok[{builder}]", f"building a {builder} engine")


def plugins_in(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """The operators of plugin nodes in a lowered graph, each with how many inputs and outputs its nodes have."""
    from edgetok.tensorrt.node import NAMESPACE

    return {
        node.op_type: (len(node.input), len(node.output)) for node in model.graph.node if node.domain == NAMESPACE
    }
