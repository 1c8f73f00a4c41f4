"""`zoo:NAME`: a real model that ships inside a registry package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetok import zoo
from edgetok.model import Captured, Origin

if TYPE_CHECKING:
    from edgetok.exporters.sources import CaptureOptions


def capture_zoo(name: str, options: CaptureOptions) -> Captured:
    """Capture a model of the zoo, without torch.

    Raises:
        UnknownName: there is no such model.
        MissingPackage: its package is not installed.
        SourceError: its files are not the ones that were added to the zoo.
    """
    model = zoo.find(name)
    path = model.locate()
    origin = Origin(kind="zoo", name=name, sha256=model.weights_sha256, licence=model.licence)
    if model.tokenizer:
        from edgetok.exporters.sources.tokenizer import capture_shipped

        return capture_shipped(path, origin, model.tokenizer, options)
    if path.is_dir():
        from edgetok.exporters.sources.bert import capture

        return capture(path, origin, length=options.length, batch=options.batch)
    if path.suffix == ".gguf":
        from edgetok.exporters.sources import gguf

        return gguf.capture(path, origin, length=options.length, batch=options.batch)
    if path.suffix == ".bin":
        from edgetok.exporters.sources import ctranslate2

        return ctranslate2.capture(path, origin, batch=options.batch)
    from edgetok.exporters.sources.onnx_file import capture_onnx

    return capture_onnx(path, options, origin=origin, preprocess=dict(model.preprocess))
