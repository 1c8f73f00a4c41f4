"""What can be exported, one kind of source per file: `capture(source, options)` turns any of them into a graph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.errors import SourceError

if TYPE_CHECKING:
    from edgetok.model import Captured


@dataclass(frozen=True)
class CaptureOptions:
    """What is fixed in the graph.

    Attributes:
        batch: fixed batch size; None leaves the batch dynamic.
        length: tokens of a text, or samples of a waveform.
        size: height and width of an image in pixels; one number for a square.
        stream: milliseconds of a causal codec's chunk; None where no graphs for streams are wanted.
    """

    batch: int | None = None
    length: int | None = None
    size: int | tuple[int, int] | None = None
    stream: float | None = None


def capture(source: str, options: CaptureOptions = CaptureOptions()) -> Captured:
    """Read a source and bring it into edgetok's spelling: opset 23, one Attention node per block, batch dynamic.

    Args:
        source: `zoo:NAME`, an .onnx file, a Hugging Face folder, or `package.module:callable`.
        options: what is fixed in the graph.

    Raises:
        SourceError: the source does not exist, is damaged or must not be read.
        CaptureError: it cannot be turned into a graph.
    """
    path = Path(source)
    if source.startswith("zoo:"):
        from edgetok.exporters.sources.zoo import capture_zoo

        return capture_zoo(source.removeprefix("zoo:"), options)
    if path.is_dir():
        from edgetok.exporters.sources.huggingface import capture_huggingface

        return capture_huggingface(path, options)
    if path.suffix == ".onnx" or path.is_file():
        from edgetok.exporters.sources.onnx_file import capture_onnx

        return capture_onnx(path, options)
    if re.fullmatch(r"[\w.]+:[\w.]+", source):
        from edgetok.exporters.sources.callable import capture_callable

        return capture_callable(source, options)
    raise SourceError(
        f"no source {source!r}: neither a file nor a folder; "
        "accepted are zoo:NAME, FILE.onnx, a Hugging Face folder, or package.module:callable"
    )
