"""Weights in files beside the model: they must lie in its folder, and be there.

ONNX names the file by a relative path; an absolute one, or one that leads out of the folder, can read any file of the
machine and does not survive a copy.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath

from edgetok.lint_rules import Finding, Graph, Target, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per file."""
    import onnx_ir as ir

    tensors = (value.const_value for value in graph.model.graph.initializers.values())
    locations = {str(tensor.location): None for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    for location in locations:
        path = PurePosixPath(location.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(location).drive or ".." in path.parts:
            yield error(
                None,
                f"weights are read from {location!r}, outside the model's folder",
                "save the model again with its data beside it",
            )
        elif graph.folder is not None:
            file = graph.folder / path
            if not file.resolve().is_relative_to(graph.folder.resolve()):
                yield error(
                    None,
                    f"weights are read from {location!r}, a link out of the model's folder",
                    "put the file itself there",
                )
            elif not file.is_file():
                yield error(None, f"weights are read from {location!r}, which is not there", "copy it beside the model")
