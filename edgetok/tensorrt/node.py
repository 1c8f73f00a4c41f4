"""The attributes of a plugin node: everything that TensorRT must know to launch one compiled kernel.

All are strings, because both forms of plugin and every version of TensorRT's ONNX parser read those. The arguments of
a kernel are pointers to the inputs, then scalars (int32), then pointers to the outputs, as TensorRT passes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from edgetok.errors import InputError
from edgetok.tensorrt.term import Size, evaluate

NAMESPACE, VERSION = "edgetok", "1"
TYPES = {  # by TensorRT's names in lower case; the number is nvinfer1::DataType's
    "float": 0,
    "half": 1,
    "int8": 2,
    "int32": 3,
    "bool": 4,
    "uint8": 5,
    "bf16": 7,
    "int64": 8,
}
MOST_SHARED = 48 << 10  # bytes of shared memory that a kernel gets without asking the driver for more


@dataclass(frozen=True)
class PluginNode:
    """One kernel and its launch.

    Attributes:
        kernel: name of the PTX's entry.
        ptx: its text.
        grid: "x, y, z", each a term (term.py).
        block: threads per block.
        shared: bytes of dynamic shared memory.
        scalars: terms of the int32 arguments between the inputs and the outputs, separated by commas; may be empty.
        inputs: types of the inputs, separated by commas.
        results: "type: size, size; ..." for each output.
    """

    kernel: str
    ptx: str
    grid: str
    block: str
    shared: str
    scalars: str
    inputs: str
    results: str

    @classmethod
    def of(
        cls,
        kernel: str,
        ptx: str,
        grid: tuple[Size, ...],
        threads: int,
        shared: int,
        scalars: tuple[Size, ...],
        inputs: tuple[str, ...],
        results: tuple[tuple[str, tuple[Size, ...]], ...],
    ) -> PluginNode:
        """Write a launch down; a grid of fewer than three axes gets ones."""
        whole = (*grid, 1, 1, 1)[:3]
        listed = "; ".join(f"{kind}: {', '.join(map(str, shape))}" for kind, shape in results)
        node = cls(
            kernel, ptx, ", ".join(map(str, whole)), str(threads), str(shared), ", ".join(map(str, scalars)),
            ", ".join(inputs), listed,
        )  # fmt: skip
        node.check([[1] * 8] * len(inputs))
        return node

    def attributes(self) -> dict[str, str]:
        """What is written on the node, TensorRT's own two included: 10.9 and older do not take them from the domain."""
        own = {name: getattr(self, name) for name in ATTRIBUTE_NAMES}
        return {**own, "plugin_namespace": NAMESPACE, "plugin_version": VERSION}

    def terms(self) -> tuple[list[str], list[str]]:
        """The grid's three terms, and the scalars'."""
        return _listed(self.grid), _listed(self.scalars)

    def outputs(self) -> list[tuple[str, list[str]]]:
        """Type and terms of the shape of each output."""
        parts = [part.partition(":") for part in self.results.split(";")]
        return [(kind.strip(), _listed(shape)) for kind, _, shape in parts]

    def check(self, sizes: list[list[int]]) -> None:
        """Refuse what a launch would fail at, or what could not be read.

        Raises:
            InputError: with the attribute at fault.
        """
        grid, scalars = self.terms()
        _expect(len(grid) == 3, "grid", self.grid, "three terms")
        _expect(self.block.isdecimal() and 1 <= int(self.block) <= 1024, "block", self.block, "1 to 1024 threads")
        _expect(self.shared.isdecimal() and int(self.shared) <= MOST_SHARED, "shared", self.shared, "up to 49152 bytes")
        entry = re.search(rf"\.entry {re.escape(self.kernel)}\((.*?)\)", self.ptx, re.DOTALL)
        _expect(entry is not None, "kernel", self.kernel, "the name of an entry of the PTX")
        known = ", ".join(TYPES)
        for kind in [*_listed(self.inputs), *(kind for kind, _ in self.outputs())]:
            _expect(kind in TYPES, "inputs or results", kind, known)
        for term in [*grid, *scalars, *(size for _, shape in self.outputs() for size in shape)]:
            evaluate(term, sizes)
        given = len(_listed(self.inputs)) + len(scalars) + len(self.outputs())
        taken = entry[1].count(".param") if entry else 0
        _expect(taken == given, "ptx", f"an entry of {taken} parameters", f"{given}: inputs, scalars, outputs")


ATTRIBUTE_NAMES = tuple(field.name for field in fields(PluginNode))


def without_scratch(ptx: str) -> str:
    """Triton's PTX without the two pointers that it appends for scratch memory, which TensorRT does not pass.

    Raises:
        InputError: the kernel reads them.
    """
    names = re.findall(r"\.param [^,)]*?(\w+_param_\d+)", ptx)[-2:]
    for name in names:
        if f"[{name}" in ptx:
            raise InputError(f"the kernel reads {name}, scratch memory that TensorRT does not pass: use none")
    head, entry, rest = ptx.partition(".entry")
    parameters, closing, body = rest.partition(")")
    for name in names:
        parameters = re.sub(rf",\s*\.param [^,)]*?\b{name}\b", "", parameters)
    return head + entry + parameters + closing + body


def without_debug(ptx: str) -> str:
    """PTX without line numbers, and without the paths of the machine that compiled it."""
    text = ptx.partition("\t.section\t.debug")[0].replace(", debug", "")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith((".loc", ".file"))) + "\n"


def in_tensorrts_order(ptx: str, order: list[int]) -> str:
    """A kernel's PTX with its parameters in another order, scratch memory left out: the body names them.

    Args:
        ptx: of one kernel, as Triton gives it.
        order: for each parameter of the result its place in the kernel's own order.
    """
    text = without_scratch(without_debug(ptx))
    head, entry, rest = text.partition(".entry")
    name, opening, rest = rest.partition("(")
    parameters, closing, body = rest.partition(")")
    own = [parameter.strip() for parameter in parameters.split(",")]
    return head + entry + name + opening + ",\n".join(own[place] for place in order) + closing + body


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _expect(holds: bool, attribute: str, got: str, accepted: str) -> None:
    if not holds:
        raise InputError(f"plugin node, {attribute}: got {got[:80]!r}, expected {accepted}")
