"""Reads a model and says what will not run, or be slow, on a device: the node, the reason and the rewrite.

Of a bundle it is the graph that edgetok gives to each runtime, in which operators that a runtime lacks are spelt by
others (edgetok/lowering/): of a foreign file the file as it stands.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok import lint_rules
from edgetok.device import Device, RuntimeOffer
from edgetok.errors import SourceError
from edgetok.lint_rules import Finding, Graph, Target
from edgetok.verify import DECODER, ENCODER, MODEL, STREAMS

if TYPE_CHECKING:
    import onnx_ir as ir

_ORDER = ("error", "warning", "info")


def lint(source: "Path | ir.Model", device: Device, *, lowered: bool = False) -> list[Finding]:
    """Hold a model against everything known of a device.

    Args:
        source: an .onnx file, a bundle's folder, or a model in memory.
        device: its profile; each of its runtimes is asked.
        lowered: whether operators are spelt for each runtime first, as edgetok does before it runs or builds a graph;
            of a bundle's folder it always is so.

    Returns:
        The findings, errors first. Nodes with the same fault share a finding; of a discrete tokenizer they are named
        with their graph.
    """
    if isinstance(source, Path) and (source / ENCODER).is_file():
        parts = [part for name in (ENCODER, DECODER, *STREAMS.values()) if (part := source / name).is_file()]
        named = [
            replace(finding, nodes=tuple(f"{part.stem}: {node}" for node in finding.nodes))
            for part in parts
            for finding in lint(part, device)
        ]
        return sorted(named, key=lambda finding: _ORDER.index(finding.severity))
    folder = None if not isinstance(source, Path) else source if source.is_dir() else source.parent
    model, lowered = (_read(source), source.is_dir()) if isinstance(source, Path) else (source, lowered)
    graphs = [Graph(_spelt(model, runtime) if lowered else model, folder) for runtime in device.runtimes]
    merged: dict[Finding, tuple[dict[str, None], dict[str, None]]] = {}
    for rule in lint_rules.names():
        check = lint_rules.load(rule).check
        for graph, runtime in zip(graphs, device.runtimes, strict=True):
            for finding in check(graph, Target(device, runtime)):
                nodes, runtimes = merged.setdefault(replace(finding, nodes=(), rule=rule), ({}, {}))
                nodes.update(dict.fromkeys(finding.nodes))
                runtimes[f"{runtime.name} {runtime.version}"] = None
    found = [replace(f, nodes=tuple(nodes), runtimes=tuple(runtimes)) for f, (nodes, runtimes) in merged.items()]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _spelt(model: "ir.Model", runtime: RuntimeOffer) -> "ir.Model":
    """A copy, as that runtime gets it."""
    from edgetok.lowering import spell

    copy = model.clone()
    spell(copy, [runtime])
    return copy


def _read(path: Path) -> "ir.Model":
    """Read a model; its weights stay on disk, and data outside its folder is never opened."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    path = path / MODEL if path.is_dir() else path
    if not path.is_file():
        raise SourceError(f"no file {str(path)!r}: lint takes an .onnx file or a bundle's folder")
    try:
        proto = onnx.load(path, load_external_data=False)
        if not proto.ir_version or not proto.HasField("graph"):
            raise ValueError("it holds no graph")
        return ShapeInferencePass()(ir.serde.deserialize_model(proto)).model
    except Exception as error:  # protobuf, onnx and onnx-ir each raise their own
        raise SourceError(f"{path.name!r} is not an ONNX model: {error}") from error
