"""One rule per file: what will not run, or be slow, on a device.

A rule is a module with `check(graph, target)`, which yields `error(...)`, `warning(...)` or `info(...)`, and with
`EXAMPLES`, which are its tests. The file name is the registration. A rule is asked once per runtime that the device
offers; its docstring says where its facts are from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetok.device import Device, RuntimeOffer

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way, and what to do.

    Args:
        severity: "error" does not run, "warning" runs slowly or not always, "info" is worth knowing.
        op: operator at fault, or "" for the model as a whole.
        nodes: names of the nodes at fault.
        reason: what is wrong there.
        rewrite: what to do instead.
        rule: file name of the rule; stamped by `lint`.
        runtimes: where it holds, as "tensorrt 10.3.0"; stamped by `lint`.
    """

    severity: Severity
    op: str
    nodes: tuple[str, ...]
    reason: str
    rewrite: str
    rule: str = ""
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A model in ONNX's text form, and what the rule must say of it.

    Args:
        device: profile to lint for.
        graph: "g (float[2] x) => (float[2] y) { y = Relu(x) }", or a whole model that begins with "<".
        severity: of the finding; None where the rule must be silent.
        says: part of the reason or the rewrite.
        opset: for a text without a header.
    """

    device: str
    graph: str
    severity: Severity | None
    says: str = ""
    opset: int = 23

    def model(self) -> "ir.Model":
        """The model, with its shapes inferred."""
        import onnx
        import onnx_ir as ir
        from onnx_ir.passes.common import ShapeInferencePass

        header = f'<ir_version: 10, opset_import: ["": {self.opset}]> '
        text = self.graph if self.graph.startswith("<") else header + self.graph
        return ShapeInferencePass()(ir.serde.deserialize_model(onnx.parser.parse_model(text))).model


def error(node: "ir.Node | None", reason: str, rewrite: str) -> Finding:
    """What does not load, build or run."""
    return _finding("error", node, reason, rewrite)


def warning(node: "ir.Node | None", reason: str, rewrite: str) -> Finding:
    """What runs, but slowly, wrongly for some inputs, or not for all sizes."""
    return _finding("warning", node, reason, rewrite)


def info(node: "ir.Node | None", reason: str, rewrite: str) -> Finding:
    """What is worth knowing."""
    return _finding("info", node, reason, rewrite)


@dataclass(frozen=True)
class Target:
    """A device and one of its runtimes."""

    device: Device
    runtime: RuntimeOffer

    @property
    def tensorrt(self) -> bool:
        """TensorRT or TensorRT-RTX."""
        return self.runtime.name.startswith("tensorrt")

    @property
    def ort_cpu(self) -> bool:
        """ONNX Runtime on the processor."""
        return self.runtime.name == "onnxruntime"

    def below(self, name: str, version: str) -> bool:
        """Whether the runtime is that one, and older than the version."""
        return self.runtime.name == name and not self.runtime.at_least(version)


@dataclass(frozen=True)
class Graph:
    """The model as rules look at it."""

    model: "ir.Model"
    folder: Path | None = None  # where its external data lies

    def nodes(self, *op_types: str) -> "Iterator[ir.Node]":
        """Every node, those of subgraphs and local functions too; of the named standard operators only, if any."""
        import onnx_ir as ir

        parts: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        for part in parts:
            for node in ir.traversal.RecursiveGraphIterator(part):
                if not op_types or (node.op_type in op_types and node.domain == ""):
                    yield node

    def opset(self, node: "ir.Node") -> int:
        """Version of the node's operator set."""
        owner = next((f for f in self.model.functions.values() if f.graph is node.graph), self.model)
        return owner.opset_imports.get(node.domain, 1)


def constant(value: "ir.Value | None") -> "np.ndarray | None":
    """The value as an array, if the graph itself holds it; data in other files is not opened."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or isinstance(tensor, ir.ExternalTensor) else tensor.numpy()


def static_dim(value: "ir.Value | None", axis: int) -> int | None:
    """Size of an axis, if it is known."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def names() -> list[str]:
    """Every rule."""
    return sorted(path.stem for folder in __path__ for path in Path(folder).glob("*.py") if path.stem != "__init__")


def load(name: str) -> Any:
    """The module of a rule."""
    return import_module(f"{__name__}.{name}")


def _finding(severity: Severity, node: "ir.Node | None", reason: str, rewrite: str) -> Finding:
    if node is None:
        return Finding(severity, "", (), reason, rewrite)
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return Finding(severity, op, (node.name or next((o.name or "" for o in node.outputs), ""),), reason, rewrite)
