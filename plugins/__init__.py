"""One operator of the ONNX domain `edgetok` per file.

A file holds the operator as an ONNX function with a body of standard operators (`function`), and the plain
PyTorch `reference` that every form is compared with. Its test cases are `cases()`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ != "edgetok.plugins":
    raise ImportError(f"import edgetok.plugins, not {__name__}: it would be a second copy")

if TYPE_CHECKING:
    from types import ModuleType

    import onnx_ir as ir

DOMAIN = "edgetok"


def names() -> list[str]:
    """The operators' file names; nothing is imported."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of an operator."""
    return import_module(f"edgetok.plugins.{name}")


def add_functions(model: ir.Model) -> None:
    """Give the model the function bodies of the `edgetok` operators that it calls."""
    import onnx_ir as ir

    called = [node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN]
    functions = {module.function.name: module.function for module in map(load, names())} if called else {}
    for name in called:  # grows by what the bodies call
        body = ir.from_proto(functions[name].to_function_proto())
        if body.identifier() not in model.functions:
            model.functions[body.identifier()] = body
            called += [node.op_type for node in body.all_nodes() if node.domain == DOMAIN]
    if called:
        model.opset_imports[DOMAIN] = 1
