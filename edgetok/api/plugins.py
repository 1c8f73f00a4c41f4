"""The kernels of `edgetok.plugins.gpu` as plugin nodes for TensorRT.

Which launches an operator makes is asked of its own `launches`, on tensors without memory, for three batches: what
grows with the batch becomes a term of it. Every launch is a plugin node of its own, because TensorRT's ahead-of-time
plugins launch one kernel each; what one writes and the next reads is a value of the graph.
"""

from __future__ import annotations

import re
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok import graph as g
from edgetok import plugins
from edgetok.errors import MissingPackage, Refusal
from edgetok.lowering.plugins import Plan, Step
from edgetok.tensorrt.node import MOST_SHARED, TYPES, PluginNode, in_tensorrts_order
from edgetok.tensorrt.term import Size, line, size

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

# Two give a line. ceil(s B / t) lies on it at B + 256 only if s / t is whole, for every power of two t up to 256: what
# grows in steps, as tiles of rows over the whole batch do, is found out.
BATCHES = (2, 3, 2 + 256)
SPELT = {"float32": "float", "float16": "half", "bfloat16": "bf16"}


def operators() -> list[str]:
    """The op_types of plugin nodes: an operator's name, with its kernel's where it takes more than one launch."""
    folder = Path(plugins.__file__).parent / "gpu"
    found = [plugins.load(name).function.name for name in plugins.names()]
    for file in sorted(folder.glob("[!_]*.py")):
        name = plugins.load(file.stem).function.name
        kernels = re.findall(r"^@triton\.jit\ndef (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
        found += [f"{name}_{kernel}" for kernel in kernels]
    return sorted(found)


def kernel_of(node: ir.Node, sm: str) -> Plan | None:
    """The launches of a node on a compute capability such as "8.7"; None where edgetok has no kernel for it.

    Raises:
        MissingPackage: torch and Triton are needed to compile kernels; no GPU is.
    """
    for package in ("torch", "triton"):
        if find_spec(package) is None:
            raise MissingPackage(package, "compiling kernels for TensorRT")
    from edgetok.plugins import gpu

    files = {plugins.load(name).function.name: name for name in gpu.names()}
    if node.op_type not in files:
        return None
    launches = gpu.launches(files[node.op_type], int(sm.replace(".", "")))
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    try:
        made = [_launched(launches, _arguments(node, batch), attributes) for batch in BATCHES]
        steps, outputs = zip(*made, strict=True)
        return _plan(node.op_type, steps, outputs[0], sm)
    except ValueError:  # sizes or types that the kernel does not take, or TensorRT does not know
        return None


def _arguments(node: ir.Node, batch: int) -> list[Any]:
    """What `launches` takes beside attributes: tensors without memory, and counts as numbers."""
    import torch

    found: list[Any] = []
    for place, value in enumerate(node.inputs):
        number = g.ints_of(value)
        if number is not None and len(number) == 1 and value is not None and len(value.shape or ()) <= 1:
            found.append(number[0])
            continue
        if value is None or value.shape is None or value.dtype is None:
            told = f"the shape of input {place} of {node.op_type} is not known"
            raise Refusal(told, node=node.name, way_out="export the model again")
        if any(not isinstance(length, int) for length in value.shape[1:]):
            raise ValueError("only the batch may be left open")
        shape = [length if isinstance(length, int) else batch for length in value.shape]
        found.append(torch.empty(shape, dtype=getattr(torch, _torch_name(value.dtype)), device="meta"))
    return found


def _torch_name(dtype: ir.DataType) -> str:
    names = {"FLOAT": "float32", "FLOAT16": "float16"}
    return names.get(dtype.name, dtype.name.lower())


def _launched(
    launches: Any, arguments: list[Any], attributes: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Each launch with its tensors numbered: inputs of the operator by place, then what is written, in order."""
    import torch

    known = {_storage(value): at for at, value in enumerate(arguments) if isinstance(value, torch.Tensor)}
    bases = dict(enumerate(arguments))
    made, outputs = launches(*arguments, **attributes)
    steps = []
    for launch in made:
        tensors = {name: value for name, value in launch.arguments.items() if isinstance(value, torch.Tensor)}
        reads = {name: known[_storage(value)] for name, value in tensors.items() if _storage(value) in known}
        writes = {}
        for name, value in tensors.items():
            if name not in reads:
                known[_storage(value)] = writes[name] = len(arguments) + len(known)
                bases[writes[name]] = value
        steps.append({"launch": launch, "reads": reads, "writes": writes, "bases": bases})
    return steps, [known[_storage(value)] for value in outputs]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _plan(operator: str, steps: Any, outputs: list[int], sm: str) -> Plan:
    """Nodes from the launches for three batches."""
    found = []
    for versions in zip(*steps, strict=True):
        launch, reads, writes = (versions[0][key] for key in ("launch", "reads", "writes"))
        several = [version["launch"] for version in versions]
        if any(one.constants != launch.constants for one in several):
            raise ValueError("another kernel for another batch")
        # Where the batch can be read off: an axis that has each of the batches in turn.
        batch = next(
            (
                size(at, 0)
                for at, key in enumerate(reads.values())
                if tuple(version["bases"][key].shape[0] for version in versions) == BATCHES
            ),
            None,
        )

        def term(values: list[int], batch: str | None = batch) -> Size:
            slope = values[1] - values[0]
            offset = values[0] - slope * BATCHES[0]
            if offset < 0 or values[2] != slope * BATCHES[2] + offset or (slope and batch is None):
                raise ValueError("not a line over the batch")
            return line(batch or "", slope, offset)

        # A size on a line over the batch is a multiple of something everywhere, if it is for two batches in a row.
        ptx, name, shared = _compiled(launch, sm, frozenset.intersection(*(one.even() for one in several)))
        scalars = [key for key in launch.arguments if key not in reads and key not in writes]
        order = [*reads, *scalars, *writes]
        node = PluginNode.of(
            name, in_tensorrts_order(ptx, [list(launch.arguments).index(key) for key in order]),
            tuple(term([one.grid[axis] for one in several]) for axis in range(len(launch.grid))),
            32 * launch.warps, shared,
            tuple(term([_scalar(one.arguments[key]) for one in several]) for key in scalars),
            tuple(_type(versions[0]["bases"][key]) for key in reads.values()),
            tuple(
                (
                    _type(launch.arguments[key]),
                    tuple(
                        term([one.arguments[key].shape[axis] for one in several])
                        for axis in range(launch.arguments[key].dim())
                    ),
                )
                for key in writes
            ),
        )  # fmt: skip
        file = launch.kernel.fn.__module__.rpartition(".")[2]  # FarthestPoints ends with the kernel of GreedySelect
        home = plugins.load(file).function.name
        called = operator if len(steps[0]) == 1 else f"{home}_{launch.kernel.__name__}"
        found.append(Step(called, node, tuple(reads.values()), tuple(writes.values())))
    return Plan(tuple(found), tuple(outputs))


def _scalar(value: int | float) -> int:
    """As TensorRT passes it, which has int32 only: a kernel that takes fp32 reads the same four bytes.

    A fraction that grows with the batch would be no line, a negative one is no size: both keep the body.
    """
    return value if isinstance(value, int) else int(struct.unpack("<i", struct.pack("<f", value))[0])


def _type(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if (spelt := SPELT.get(name, name)) not in TYPES:
        raise ValueError(f"plugins take no {name}")
    return spelt


def _compiled(launch: Any, sm: str, even: frozenset[str]) -> tuple[str, str, int]:
    """PTX, entry and bytes of shared memory."""
    for stages in range(launch.stages, 0, -1):  # fewer of them load less ahead, and take less shared memory
        made = launch.compiled(int(sm.replace(".", "")), stages, even)
        if made.metadata.shared <= MOST_SHARED:
            return str(made.asm["ptx"]), str(made.metadata.name), int(made.metadata.shared)
    raise ValueError(f"{made.metadata.shared} bytes of shared memory")
