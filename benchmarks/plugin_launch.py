"""Runs on a GPU exactly what TensorRT was told to launch, and compares it with the operator's reference.

    python benchmarks/plugin_launch.py launches.json      # on a machine with a GPU: torch and numpy, no TensorRT

launches.json is what NVIDIA's own `tensorrt.plugin` made of the plugin nodes (tests/tensorrt/bindings.py, which
`--record` runs): entry, PTX, grid, block, shared memory and scalars. They go to the driver as TensorRT passes them:
inputs, scalars, outputs.

    python benchmarks/plugin_launch.py --record 11.4.0.106 launches.json     # anywhere: makes the file

The C++ plugin library launches the same nodes through its own enqueue, where one names a folder that has it and what
stands in TensorRT's place (plugin_enqueue.cpp):

    python benchmarks/plugin_launch.py --build plugins.d                     # where TensorRT's headers are: makes it
    python benchmarks/plugin_launch.py launches.json --library plugins.d
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SM, ENQUEUE = "9.0", "enqueue.so"
TYPES = {"float32": "float", "float16": "half", "int64": "int64", "int32": "int32", "uint8": "uint8"}


def record(file: Path, version: str) -> None:
    """Let NVIDIA's Python of that version compute the launches of every kernel on its operator's cases."""
    from edgetok import plugins
    from edgetok.api.plugins import kernel_of
    from edgetok.plugins import gpu
    from edgetok.tensorrt.term import evaluate

    asked, found = [], []
    for name in gpu.names():
        for case, arguments in plugins.load(name).cases():
            function = plugins.load(name).function
            plans = (kernel_of(node_of(function, arguments, free), SM) for free in (True, False))
            plan = next(filter(None, plans), None)
            if plan is None:
                print(f"{name}, {case}: no plugin", file=sys.stderr)
                continue
            tensors = {at: (TYPES[str(t.dtype)[6:]], list(t.shape)) for at, t in enumerate(arguments) if is_tensor(t)}
            steps = []
            for step in plan.steps:
                types, shapes = zip(*(tensors[number] for number in step.reads), strict=True)
                asked.append(
                    {"operator": step.operator, "attributes": step.node.attributes(), "types": types, "shapes": shapes}
                )
                steps.append({"launch": len(asked) - 1, "reads": step.reads, "writes": step.writes})
                for number, (kind, terms) in zip(step.writes, step.node.outputs(), strict=True):
                    tensors[number] = kind, [evaluate(term, shapes) for term in terms]
            found.append({"operator": name, "case": case, "steps": steps, "outputs": plan.outputs})
    launches = [
        {**told, "operator": node["operator"], "attributes": node["attributes"]}
        for told, node in zip(nvidias(asked, version), asked, strict=True)
    ]
    file.write_text(json.dumps({"version": version, "launches": launches, "cases": found}))


def build(folder: Path) -> None:
    """Compile the plugin library and what calls it, with the headers that the tests have."""
    from edgetok.tensorrt import library
    from tests.tensorrt import installed

    source = Path(__file__).with_name("plugin_enqueue.cpp")
    headers = installed.headers()
    subprocess.run([sys.executable, "-m", "edgetok", "build-plugins", "-o", folder,
                    *(word for place in headers for word in ("--headers", place))], check=True)  # fmt: skip
    subprocess.run(library.command("g++", [source], folder / ENQUEUE, [], headers), check=True)


def nvidias(asked: list[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """What `tensorrt.plugin` of that version makes of plugin nodes."""
    from tests.tensorrt import installed

    script = [sys.executable, "-W", "ignore", str(installed.HERE / "bindings.py")]
    own = installed.bindings(version)
    done = subprocess.run(script, input=json.dumps(asked), env=own, stdout=subprocess.PIPE, text=True, check=True)
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["nodes"]
    return told


def is_tensor(value: object) -> bool:
    """Whether an argument of a case is a tensor that a kernel reads; one number is a count."""
    import torch

    return isinstance(value, torch.Tensor) and not (value.dtype == torch.int64 and value.numel() == 1)


def node_of(function: Any, arguments: tuple[Any, ...], free: bool) -> Any:
    """A node of the operator; `free` leaves its batch open where the case has several items."""
    import onnx_ir as ir
    import torch

    from edgetok import graph as g

    graph, inputs, batch = ir.Graph([], [], nodes=[], name="one"), [], arguments[0].shape[0] if free else 0
    proto = function.to_function_proto()
    for at, value in enumerate(arguments[: len(proto.input)]):
        if not is_tensor(value):
            inputs.append(g.constant(graph, torch.as_tensor(value).reshape(1).numpy()))
            continue
        shape = ["batch" if axis == 0 and size == batch > 1 else size for axis, size in enumerate(value.shape)]
        dtype = ir.DataType.from_numpy(value.numpy().dtype)
        inputs.append(ir.Value(name=f"input{at}", shape=ir.Shape(shape), type=ir.TensorType(dtype)))
    named = dict(zip(proto.attribute, arguments[len(proto.input) :], strict=True))
    return ir.node(function.name, inputs, attributes=named, domain="edgetok")


def checked(error: int, what: str) -> None:
    """Stop at a driver's error."""
    if error:
        raise RuntimeError(f"{what} gave CUDA error {error}")


def play(file: Path, folder: Path | None = None) -> None:
    """Run every recorded case as it was recorded, or by the plugin library in a folder; compare and time it."""
    import torch

    from edgetok import plugins

    told = json.loads(file.read_text())
    torch.zeros(1, device="cuda")  # makes the context that the driver's calls work in
    by = f"TensorRT {told['version']}'s tensorrt.plugin" if folder is None else "the plugin library's enqueue"
    print(f"\n{torch.cuda.get_device_name()}, launches by {by}\n")
    print("| operator | case | launches | error of each output | microseconds |\n|---|---|---|---|---|")
    for case in told["cases"]:
        module = plugins.load(case["operator"])
        arguments = dict(module.cases())[case["case"]]
        wanted = module.reference(*arguments)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        head = f"| {case['operator']} | {case['case']} | {len(case['steps'])} |"
        try:
            tensors = {at: value.cuda().contiguous() for at, value in enumerate(arguments) if is_tensor(value)}
            ready = [prepared(told["launches"][step["launch"]], step, tensors, folder) for step in case["steps"]]
            microseconds = timed(partial(in_order, ready))
            got = [tensors[number].cpu() for number in case["outputs"]]
            print(head, ", ".join(map(difference, got, wanted)), f"| {microseconds:.1f} |")
        except RuntimeError as error:
            print(head, str(error).splitlines()[0][:80], "| |")


def difference(got: torch.Tensor, wanted: torch.Tensor) -> str:
    """How far a result is off: how many of whole numbers, the worst error of others."""
    if got.shape != wanted.shape:
        return f"shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    if not wanted.dtype.is_floating_point:
        return f"{(got != wanted).sum().item()} of {wanted.numel()} differ"
    return f"{(got.double() - wanted.double()).abs().max().item():.1e}"


def prepared(
    node: dict[str, Any], step: dict[str, Any], tensors: dict[int, torch.Tensor], folder: Path | None
) -> Callable[[], None]:
    """One launch, whose outputs are made here."""
    import torch

    named = {kind: dtype for dtype, kind in TYPES.items()}
    for number, (kind, shape) in zip(step["writes"], node["outputs"], strict=True):
        tensors[number] = torch.zeros(shape, dtype=getattr(torch, named[kind]), device="cuda")
    reads, writes = ([tensors[number] for number in step[key]] for key in ("reads", "writes"))
    return by_driver(node, reads, writes) if folder is None else by_library(node, reads, writes, folder)


def by_driver(node: dict[str, Any], reads: list[torch.Tensor], writes: list[torch.Tensor]) -> Callable[[], None]:
    """As TensorRT was told, its arguments as TensorRT passes them: inputs, scalars, outputs."""
    import torch

    cuda, module, function = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
    image, name = node["ptx"].encode() + b"\0", node["kernel"].encode()
    checked(cuda.cuModuleLoadDataEx(ctypes.byref(module), image, 0, None, None), "cuModuleLoadDataEx")
    checked(cuda.cuModuleGetFunction(ctypes.byref(function), module, name), "cuModuleGetFunction")
    scalars = [ctypes.c_int32(scalar) for scalar in node["scalars"]]
    held = [*map(pointer, reads), *scalars, *map(pointer, writes)]
    arguments = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
    launch = node["launch"]
    sizes = [launch[f"{kind}_{axis}"] for kind in ("grid", "block") for axis in "xyz"]
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

    def run() -> None:
        assert held
        error = cuda.cuLaunchKernel(function, *sizes, launch["shared_mem"], stream, arguments, None)
        checked(error, "cuLaunchKernel")

    return run


def by_library(
    node: dict[str, Any], reads: list[torch.Tensor], writes: list[torch.Tensor], folder: Path
) -> Callable[[], None]:
    """By the C++ plugin, made of what another of its kind wrote down, as an engine keeps it."""
    import torch

    from edgetok.tensorrt.library import LIBRARY
    from edgetok.tensorrt.node import TYPES as NUMBERS

    enqueue, own = ctypes.CDLL(str(folder / ENQUEUE)), node["attributes"]
    enqueue.made.restype = ctypes.c_void_p
    names, texts = ((ctypes.c_char_p * len(own))(*(text.encode() for text in part)) for part in (own, own.values()))
    plugin = enqueue.made(str(folder / LIBRARY).encode(), node["operator"].encode(), len(own), names, texts)
    if not plugin:
        raise RuntimeError("the library refuses the node")
    count, of = len(reads), ctypes.c_int * len(reads)
    kinds = of(*(NUMBERS[TYPES[str(tensor.dtype)[6:]]] for tensor in reads))
    ranks = of(*(tensor.ndim for tensor in reads))
    sizes = (ctypes.c_int64 * (8 * count))()
    for at, tensor in enumerate(reads):
        sizes[8 * at : 8 * at + tensor.ndim] = list(tensor.shape)
    given, taken = ((ctypes.c_void_p * len(part))(*map(pointer, part)) for part in (reads, writes))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

    def run() -> None:
        assert reads and writes
        error = enqueue.enqueue(ctypes.c_void_p(plugin), count, kinds, ranks, sizes, given, taken, stream)
        checked(error, "the plugin's enqueue")

    return run


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    """Where a tensor lies."""
    return ctypes.c_void_p(tensor.data_ptr())


def in_order(launches: Sequence[Callable[[], None]]) -> None:
    """All launches of an operator."""
    for launch in launches:
        launch()


def timed(call: Callable[[], object], runs: int = 100) -> float:
    """Microseconds of one call, by device events over many."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(20):
        call()
    start.record()
    for _ in range(runs):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) * 1e3 / runs


def main() -> None:
    """Record, build, or run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launches", nargs="?", type=Path, help="the file")
    parser.add_argument("--record", metavar="VERSION", help="make the file with this TensorRT's Python")
    parser.add_argument("--build", metavar="FOLDER", type=Path, help="make the plugin library and what calls it")
    parser.add_argument("--library", metavar="FOLDER", type=Path, help="launch by the plugin library in it")
    chosen = parser.parse_args()
    if chosen.build:
        build(chosen.build)
    if chosen.record:
        record(chosen.launches, chosen.record)
    elif chosen.launches:
        play(chosen.launches, chosen.library)


if __name__ == "__main__":
    main()
