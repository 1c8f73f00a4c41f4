"""A graph's opset, lowered to what a parser documents where no node means another thing there.

Since opset 20 operators mostly took more types; those that came later, or changed, keep the opset as it is.
"""

from __future__ import annotations

import onnx_ir as ir

CHANGED = {"GroupNormalization": 21}  # the same inputs, other numbers


def lower(model: ir.Model, newest: int) -> bool:
    """Give the model that opset, in place; False where one of its nodes would be another operator there.

    Args:
        model: with its types inferred; what has none, as in functions, is taken to be what the older operator takes.
        newest: the opset wanted; nothing is done to a model that is no newer.
    """
    current = model.opset_imports.get("", 0)
    parts: list[ir.Model | ir.Function] = [model, *model.functions.values()]
    nodes = [node for part in parts for node in ir.traversal.RecursiveGraphIterator(part.graph)]
    if current <= newest or not all(_same(node, current, newest) for node in nodes if not node.domain):
        return False
    for part in parts:
        part.opset_imports[""] = newest
    return True


def _same(node: ir.Node, current: int, older: int) -> bool:
    import onnx

    if onnx.defs.get_schema(node.op_type, current, "").since_version <= older:
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, older, "")
    except onnx.defs.SchemaError:
        return False
    if older < CHANGED.get(node.op_type, 0) or not set(node.attributes) <= set(schema.attributes):
        return False
    allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
    for formals, values in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        if len(values) > len(formals) and formals[-1].option.name != "Variadic":
            return False
        for index, value in enumerate(values):
            formal = formals[min(index, len(formals) - 1)]
            types = allowed.get(formal.type_str)
            dtype = None if value is None else value.dtype
            if types is not None and dtype is not None and f"tensor({_spelt(dtype)})" not in types:
                return False
    return True


def _spelt(dtype: ir.DataType) -> str:
    """As ONNX's schemas spell a type."""
    return {"FLOAT": "float", "DOUBLE": "double"}.get(dtype.name, dtype.name.lower())
