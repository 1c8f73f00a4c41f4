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
        CaptureError: torch cannot export the module.
    """
    import torch

    from edgetok.normalise import normalise

    module = module.eval()
    with torch.no_grad():
        names = list(_named(module(**example)))
    axes = {name: ({0: "batch"} if batch is None else {}) | (free or {}).get(name, {}) for name in example}
    model = _export(module, example, names, axes, {"batch": 4096} | (most or {}))
    if type(module).__name__.endswith("ForCTC"):  # so transformers names them; the graph gives out mere logits
        model.metadata_props[g.HEAD] = "ctc"
    normalise(model)

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
    pairs = outputs.items() if hasattr(outputs, "items") else ((f"output_{i}", v) for i, v in enumerate(outputs))
    named: dict[str, torch.Tensor] = {}
    for name, value in pairs:
        if isinstance(value, torch.Tensor):
            named[name] = value
        elif isinstance(value, (tuple, list)):
            named.update({f"{name}.{i}": v for i, v in enumerate(value) if isinstance(v, torch.Tensor)})
    return named


def _export(
    module: torch.nn.Module,
    example: dict[str, torch.Tensor],
    names: list[str],
    axes: dict[str, dict[int, str]],
    most: dict[str, int],
) -> ir.Model:
    """The module as an onnx-ir model; eager attention is the second try (BEiT and Swin fail with sdpa)."""
    import torch

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
            with quiet():
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
        return program.model
    raise CaptureError(
        f"torch.onnx.export cannot export {type(module).__name__}: {_first_line(failure)}; "
        "try torch.export on it alone, or export it to .onnx yourself and give that file"
    )


def _first_line(error: Exception | None) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or ["no message"])[0][:300]
