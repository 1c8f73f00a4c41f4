"""An .onnx file, of any exporter and of opset 7 or newer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok import graph as g
from edgetok.errors import CaptureError, SourceError
from edgetok.files import sha256_of
from edgetok.model import Captured, Origin, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

    from edgetok.exporters.sources import CaptureOptions
    from edgetok.preprocess import Preprocess

EXAMPLE = 64  # stands for a free axis in the example


def capture_onnx(
    path: Path,
    options: CaptureOptions,
    *,
    origin: Origin | None = None,
    preprocess: dict[str, Preprocess] | None = None,
) -> Captured:
    """Read a file and bring it into edgetok's spelling; the untouched file on stock onnxruntime is the reference.

    Args:
        path: the file; its external data must lie in its folder.
        options: what is fixed in the graph.
        origin: where it came from; the file itself where not given.
        preprocess: how a file becomes each input.

    Raises:
        SourceError: the file is missing, damaged, too new, or points outside its folder.
        CaptureError: it cannot be turned into a graph.
    """
    from edgetok.inputs import example_inputs
    from edgetok.normalise import normalise
    from edgetok.rewrite.fold import modernise

    model, data = _read(path)
    _fix_inputs(model.graph, options)
    modernise(model)
    normalise(model)
    inputs = tuple(replace(spec, preprocess=(preprocess or {}).get(spec.name)) for spec in g.specs(model.graph.inputs))
    return Captured(
        model=model,
        inputs=inputs,
        outputs=g.specs(model.graph.outputs),
        origin=origin or Origin(kind="onnx", name=path.name, sha256=sha256_of(path, *data)),
        reference=reference_of(path),
        example=example_inputs([_whole(spec) for spec in inputs], path.parent, batch=options.batch or 2),
    )


def _read(path: Path) -> tuple[ir.Model, list[Path]]:
    """The model and its external data files."""
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise SourceError(f"{str(path)!r} is missing: there is no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise SourceError(f"{path.name!r} is not an ONNX file, or is cut off: {str(error).splitlines()[0]}") from None
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is None or not proto.graph.node:
        raise SourceError(f"{path.name!r} is not an ONNX file, or is cut off: it holds no graph of ONNX operators")
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise SourceError(
            f"{path.name!r} has opset {opset}, the installed onnx {onnx.__version__} knows up to {newest}: "
            "pip install -U onnx, or export with an older opset"
        )
    data = sorted({_external(tensor, path.parent) for tensor in _external_tensors(proto)})
    try:
        return ir.from_proto(proto) if not data else ir.load(path), data
    except Exception as error:  # onnx-ir raises many kinds on malformed graphs
        raise SourceError(f"{path.name!r} is damaged: {str(error).splitlines()[0][:200]}") from None


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    return [tensor for tensor in _get_all_tensors(proto) if uses_external_data(tensor)]


def _external(tensor: onnx.TensorProto, folder: Path) -> Path:
    """The file that holds a tensor, after its place and size were checked."""
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    location: str = entries.get("location", "")
    file = folder / location
    if not location or not file.resolve().is_relative_to(folder.resolve()):
        raise SourceError(f"tensor {tensor.name!r} lies in {location!r}, outside the model's folder: it is not read")
    if not file.is_file():
        raise SourceError(f"{location!r}, which holds tensor {tensor.name!r}, is missing beside the model")
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except (KeyError, ValueError):
        raise SourceError(f"tensor {tensor.name!r} has a malformed type or place in {location!r}") from None
    for dim in tensor.dims:
        size *= dim
    need = size if length < 0 else length
    if offset < 0 or size < 0 or offset + need > file.stat().st_size:
        raise SourceError(
            f"{location!r} holds {file.stat().st_size} bytes, but tensor {tensor.name!r} needs {need} "
            f"from byte {offset} on: the file is cut off"
        )
    return file


def _fix_inputs(graph: ir.Graph, options: CaptureOptions) -> None:
    """Write batch, size and length into the free axes of the inputs."""
    import onnx_ir as ir

    size = (options.size, options.size) if isinstance(options.size, int) else options.size
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        if value.shape is None:
            raise CaptureError(f'input {value.name!r} has no shape; write it into the file, with "batch" as axis 0')
        dims: list[Any] = list(value.shape)
        wanted: dict[int, int | None] = {0: options.batch} if dims else {}
        if len(dims) == 4 and value.dtype is not None and value.dtype.is_floating_point():
            if size is not None:
                wanted |= {2: size[0], 3: size[1]}
        elif options.length is not None:
            wanted |= {axis: options.length for axis in range(1, len(dims)) if not isinstance(dims[axis], int)}
        for axis, number in wanted.items():
            if number is None:
                continue
            if isinstance(dims[axis], int) and dims[axis] not in (number, -1):
                raise CaptureError(
                    f"axis {axis} of input {value.name!r} is fixed at {dims[axis]} in the file, not {number}"
                )
            dims[axis] = number
        value.shape = ir.Shape([None if dim == -1 else dim for dim in dims])


def _whole(spec: TensorSpec) -> TensorSpec:
    """The spec with numbers for free axes other than the batch."""
    return replace(spec, shape=(*spec.shape[:1], *(n if isinstance(n, int) else EXAMPLE for n in spec.shape[1:])))


def reference_of(path: Path) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The untouched file on onnxruntime; its session is made when it is first needed, and kept."""

    @cache
    def session() -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            names = [output.name for output in session().get_outputs()]
            return dict(zip(names, session().run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime's own kinds share no base
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            raise CaptureError(
                f"the original {path.name!r} does not run on {shapes}: {str(error).splitlines()[0][:200]}; "
                "free axes are fixed with --size or --length"
            ) from None

    return run
