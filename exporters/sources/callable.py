"""`package.module:callable` returns a torch module, or a module and its example inputs."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from edgetok.errors import MissingPackage, SourceError, UnknownName
from edgetok.model import Captured, Origin

if TYPE_CHECKING:
    import torch

    from edgetok.exporters.sources import CaptureOptions


def capture_callable(source: str, options: CaptureOptions) -> Captured:
    """Import the module, call the callable without arguments and export what it returns.

    Raises:
        SourceError: the import or the call fails, or the result is neither a module nor (module, inputs).
    """
    try:
        import torch
    except ImportError:
        raise MissingPackage("edgetok[export]", f"exporting {source!r}") from None
    from edgetok.exporters.sources.huggingface import _example
    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.exporters.sources.tokenizer import capture_tokenizer
    from edgetok.tokenizer.family import family_of

    result = _call(source)
    module, inputs = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"{source!r} returned {type(result).__name__}; "
            "accepted are a torch.nn.Module, or a pair of it and its example inputs"
        )
    origin = Origin(kind="callable", name=source, sha256=None, licence=None)
    if inputs is None and (family := family_of(module)):
        return capture_tokenizer(module, family, origin, options)
    if inputs is None:
        if not hasattr(module, "main_input_name"):
            raise SourceError(
                f"{source!r} returned a {type(module).__name__} without example inputs; return (module, inputs)"
            )
        example = _example(module, options)
    else:
        example = _by_name(source, module, inputs)
    if options.batch is not None:  # as many as are asked for, in turns
        example = {name: tensor[torch.arange(options.batch) % len(tensor)] for name, tensor in example.items()}
    elif any(tensor.shape[0] < 2 for tensor in example.values()):
        example = {name: torch.cat([tensor, tensor]) for name, tensor in example.items()}
    return capture_module(module, example, origin, batch=options.batch)


def _call(source: str) -> Any:
    module_name, _, attribute = source.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: users name a file of their project
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = f"looked in {here} and in this Python's packages"
        raise SourceError(f"cannot import {module_name!r} of {source!r}: {error}; {where}") from None
    except Exception as error:  # a file of the user's own: whatever stands in it
        raise SourceError(f"cannot import {module_name!r} of {source!r}: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UnknownName(f"attribute of {module_name!r}", part, [n for n in dir(value) if not n.startswith("_")])
        value = getattr(value, part)
    try:
        return value()
    except Exception as error:
        raise SourceError(f"{source!r} failed: {type(error).__name__}: {error}") from error


def _by_name(source: str, module: torch.nn.Module, inputs: Any) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(inputs, torch.Tensor):
        inputs = (inputs,)
    if isinstance(inputs, (tuple, list)):
        inputs = dict(zip(inspect.signature(module.forward).parameters, inputs, strict=False))
    if not isinstance(inputs, dict) or not all(isinstance(value, torch.Tensor) for value in inputs.values()):
        raise SourceError(f"{source!r}: example inputs must be tensors, got {type(inputs).__name__}")
    if flat := [name for name, tensor in inputs.items() if not tensor.ndim]:
        raise SourceError(f"{source!r}: example input {flat[0]!r} has no axes; axis 0 of every input is the batch")
    return inputs
