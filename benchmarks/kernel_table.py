"""Write down which operators the CPU provider of the installed onnxruntime has kernels for, for `edgetok lint`.

    pip install onnxruntime==1.23.2 && python benchmarks/kernel_table.py

asks onnxruntime itself and writes edgetok/lint_rules/onnxruntime-1.23.2.json: domain -> operator -> rows of
[first opset, last opset or null, {type constraint: [types]}]. A kernel serves a node when its first opset is the one in
which the operator last changed, or when it has a last opset and that opset lies between: a kernel for LpNormalization
from 1 on, without an end, does not serve the operator of opset 22.
"""

import json
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

INT_MAX = 2**31 - 1
Row = list[Any]  # first opset, last opset or None, types by constraint


def rows(kernels: list[Row]) -> list[Row]:
    """Kernels of one operator; those that differ in one constraint only become one row."""
    merged: list[Row] = []
    for start, end, types in kernels:
        for row in merged:
            differ = [key for key in types if types[key] != row[2].get(key)]
            if row[:2] == [start, end] and types.keys() == row[2].keys() and len(differ) <= 1:
                for key in differ:
                    row[2][key] = sorted({*row[2][key], *types[key]})
                break
        else:
            merged.append([start, end, dict(types)])
    return merged


def main() -> None:
    table: dict[str, dict[str, list[Row]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            start, end = kernel.version_range
            types = {
                key: sorted(t.removeprefix("tensor(").removesuffix(")") for t in value)
                for key, value in kernel.type_constraints.items()
            }
            found = [start, None if end == INT_MAX else end, types]
            table.setdefault(kernel.domain or "ai.onnx", {}).setdefault(kernel.op_name, []).append(found)
    merged = {d: {op: rows(kernels) for op, kernels in sorted(ops.items())} for d, ops in sorted(table.items())}
    folder = Path(__file__).parents[1] / "edgetok" / "lint_rules"
    path = folder / f"onnxruntime-{onnxruntime.__version__}.json"
    lines = [
        f'"{domain}": {{\n'
        + ",\n".join(f'"{op}": {json.dumps(r, separators=(",", ":"))}' for op, r in ops.items())
        + "\n}"
        for domain, ops in merged.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {sum(map(len, merged.values()))} operators")


if __name__ == "__main__":
    main()
