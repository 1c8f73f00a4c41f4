"""A torch module becomes a graph through `torch.onnx.export(dynamo=True)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetok import graph as g
from edgetok.errors import CaptureError
from edgetok.model import Captured, Origin, TensorSpec
from edgetok.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgetok.preprocess import Preprocess


def capture_module(
    module: torch.nn.Module,
    example: dict[str, torch.Tensor],
    origin: Origin,
    *,
    batch: int | None = None,
    preprocess: dict[str, Preprocess] | None = None,
    free: dict[str, dict[int, str]] | None = None,
    most: dict[str, int] | None = None,
) -> Captured:
    """Export a module whose forward takes the example's names; axis 0 of every input is the batch.

    Args:
        module: any module whose output is a tensor, a tuple, or a Hugging Face ModelOutput.
        example: one batch of inputs, at least two samples where the batch stays dynamic.
        origin: where it came from.
        batch: fixed batch size; None leaves it dynamic.
        preprocess: how a file becomes each input.
        free: further axes that stay dynamic, by input, with their names: {"waveform": {2: "samples"}}.
        most: the largest size of a free axis, by its name, where the module takes no larger one.

    Raises:
        CaptureError: the module cannot run on the example, names an output as an input, or torch cannot export it.
    """
    import torch

    from edgetok.normalise import normalise

    module = module.eval()
    with torch.no_grad():
        names = list(_named(_tried(module, example)))
    if shared := set(names) & set(example):
        raise CaptureError(
            f"{type(module).__name__} has both an input and an output named {min(shared)!r}: a graph has one value "
            "of a name; give the output another one"
        )
    axes = {name: ({0: "batch"} if batch is None else {}) | (free or {}).get(name, {}) for name in example}
    model = _export(module, example, names, axes, {"batch": 4096} | (most or {}))
    if type(module).__name__.endswith("ForCTC"):  # so transformers names them; the graph gives out mere logits
        model.metadata_props[g.HEAD] = "ctc"
    normalise(model)
    _name_ends(model.graph, list(example), names)

    def reference(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in _named(outputs).items()}

    return Captured(
        model=model,
        inputs=tuple(
            TensorSpec(
                name=name,
                dtype=str(tensor.dtype).removeprefix("torch."),
                shape=tuple(axes[name].get(axis, size) for axis, size in enumerate(tensor.shape)),
                preprocess=(preprocess or {}).get(name),
            )
            for name, tensor in example.items()
        ),
        outputs=g.specs(model.graph.outputs),
        origin=origin,
        reference=reference,
        example={name: tensor.numpy() for name, tensor in example.items()},
    )


def _named(outputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of a module's output under the names that the graph's outputs get."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    if not isinstance(outputs, (tuple, list)) and not hasattr(outputs, "items"):
        raise CaptureError(f"a module must give tensors, in a tuple or by name; it gives {type(outputs).__name__}")
    pairs = outputs.items() if hasattr(outputs, "items") else ((f"output_{i}", v) for i, v in enumerate(outputs))
    named: dict[str, torch.Tensor] = {}
    for name, value in pairs:
        if isinstance(value, torch.Tensor):
            named[name] = value
        elif isinstance(value, (tuple, list)):
            named.update({f"{name}.{i}": v for i, v in enumerate(value) if isinstance(v, torch.Tensor)})
    return named


def _tried(module: torch.nn.Module, example: dict[str, torch.Tensor]) -> Any:
    """What the module gives for its example, before anything of ours has touched it."""
    try:
        return module(**example)
    except Exception as error:  # whatever the module's own code raises
        given = ", ".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in example.items())
        raise CaptureError(
            f"{type(module).__name__} itself fails on its example inputs ({given}): {type(error).__name__}: {error}"
        ) from error


def _export(
    module: torch.nn.Module,
    example: dict[str, torch.Tensor],
    names: list[str],
    axes: dict[str, dict[int, str]],
    most: dict[str, int],
) -> ir.Model:
    """The module as an onnx-ir model; eager attention is the second try (BEiT and Swin fail with sdpa)."""
    import torch

    from edgetok.modules.multihead_attention import one_node_each

    called = {axis for of in axes.values() for axis in of.values()}
    dims = {name: torch.export.Dim(name, min=1, max=most.get(name, 2**31 - 1)) for name in sorted(called)}
    shapes = {name: {axis: dims[of] for axis, of in free.items()} for name, free in axes.items()} if dims else None
    failure: Exception | None = None
    for attention in ("as it is", "eager"):
        if attention == "eager":
            if not hasattr(module, "set_attn_implementation"):
                break
            module.set_attn_implementation("eager")  # type: ignore[operator]
        try:
            with quiet(), one_node_each(module):
                program = torch.onnx.export(
                    module,
                    (),
                    kwargs=example,
                    dynamo=True,
                    opset_version=g.OPSET,
                    dynamic_shapes=shapes,
                    output_names=names,
                    verbose=False,
                )
        except Exception as error:  # torch raises dozens of kinds here
            failure = failure or error
            continue
        assert program is not None
        _check_free(program.model, axes, type(module).__name__)
        return program.model
    raise CaptureError(
        f"torch.onnx.export cannot export {type(module).__name__}: {_first_line(failure)}; "
        "try torch.export on it alone, or export it to .onnx yourself and give that file"
    )


def _name_ends(graph: ir.Graph, inputs: list[str], outputs: list[str]) -> None:
    """Give inputs and outputs the module's names: torch calls an input that is also given out `x_orig`.

    An output that is an input, or another output as well, becomes a value of its own.
    """
    op = g.Emitter(graph)
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    for place, name in enumerate(outputs):
        value = graph.outputs[place]
        if value.is_graph_input() or value in graph.outputs[:place]:
            assert value.shape is not None
            graph.outputs[place] = g.typed(op.Identity(value), value.dtype, list(value.shape))
        graph.outputs[place].name = name


def _check_free(model: ir.Model, axes: dict[str, dict[int, str]], module: str) -> None:
    """Make sure that the axes that were to stay free did: torch's last resort fixes them, and says nothing.

    Raises:
        CaptureError: one has the example's size.
    """
    shapes = {value.name: value.shape for value in model.graph.inputs}
    for name, axis, called in ((name, *each) for name, free in axes.items() for each in free.items()):
        shape = shapes.get(name)
        if shape is not None and isinstance(shape[axis], int):
            size = f"{name}.shape[{axis}]"
            or_fix = ", and --batch N fixes it" if called == "batch" else ""
            raise CaptureError(
                f"{module} fixes axis {axis} of {name!r}, the {called}, at {shape[axis]}: its code makes a number of "
                f"it, as len({name}) or int({size}) does; {size} by itself leaves it free{or_fix}"
            )


def _first_line(error: BaseException | None) -> str:
    """Of what happened in the first place: torch's own error names its steps, not the reason."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or ["no message"])[0][:300]
