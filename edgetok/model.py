"""What capture hands on: the graph, its inputs and outputs, where it came from, and the original to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.preprocess import Preprocess  # at run time too: the manifest validates TensorSpec by its annotations

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgetok.tokenizer.description import Description


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        name: its name in the graph.
        dtype: numpy's name of the type: "float32", "int64", "bfloat16".
        shape: one entry per axis; a string, such as "batch", names a dynamic one.
        preprocess: how a file becomes this input; None for outputs, and where only arrays will do.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    preprocess: Preprocess | None = None


@dataclass(frozen=True)
class Origin:
    """Where a graph came from.

    Attributes:
        kind: "zoo", "onnx", "huggingface" or "callable".
        name: what it is called: the base name, never a path of this machine.
        sha256: of the weights' file, or of all of them; None when the weights were made in memory.
        licence: of the weights, where it is known.
    """

    kind: str
    name: str
    sha256: str | None = None
    licence: str | None = None


@dataclass
class Captured:
    """A source turned into a graph.

    Attributes:
        model: opset 23, IR 10, only operators with a CPU kernel in onnxruntime 1.23.
        inputs: in the graph's order.
        outputs: in the graph's order.
        origin: goes into the manifest.
        reference: the original: the PyTorch module, or the untouched file on stock onnxruntime.
        example: one seeded batch of valid inputs.
        files: what the bundle must carry besides the graph, such as tokenizer.json, by name.
        tokenizer: what is known of it, where this is the encoder of a discrete tokenizer.
        decoder: of a discrete tokenizer: from ids to the signal.
        streams: of a causal codec: its encoder and decoder for one chunk, where they were asked for.
        check_near_ties: (feeds, ids) -> a ParityError where an id is neither the best in fp64 nor a near-tie with it.
            None where the original cannot be asked: it is no PyTorch module of a known family.
    """

    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    origin: Origin
    reference: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    example: dict[str, np.ndarray]
    files: dict[str, Path] = field(default_factory=dict)
    tokenizer: Description | None = None
    decoder: Captured | None = None
    streams: tuple[Captured, Captured] | None = None
    check_near_ties: Callable[[dict[str, np.ndarray], np.ndarray], None] | None = None
