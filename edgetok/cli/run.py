"""`edgetok run`: a bundle on this machine, or on a device over SSH."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetok.cli._console import (
    Answer,
    Arithmetic,
    Json,
    OrRemote,
    RuntimeName,
    Verbose,
    Wheels,
    pairs,
    progress,
    shape,
    table,
)
from edgetok.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

TOP = 5  # values shown per sample


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="FILE", help="A picture, text, recording or .npz. May be repeated."),
    ] = None,
    on: Annotated[str, OrRemote] = "cpu",
    wheels: Wheels = None,
    expected_id: Annotated[
        str | None, typer.Option("--id", metavar="HEX", help="Insist on this bundle: 8 digits of its id or more.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE.npz", help="Write the outputs.")] = None,
    arithmetic: Arithmetic = "a32",
    runtime: RuntimeName = "onnxruntime",
    json: Json = False,
    verbose: Verbose = False,
) -> Answer:
    """Run a bundle: on your files, or on its own samples, whose results it knows."""
    from edgetok import api, runtimes
    from edgetok.api import remote
    from edgetok.promise import halved

    if out is not None:
        _check_file(out)
    if (device := remote.target(on, wheels)) is not None:
        options = [f"--arithmetic={arithmetic}", f"--runtime={runtime}"]
        options += [f"--id={expected_id}"] if expected_id else []
        with progress(bar=True) as tell:
            told = remote.run_on(device, bundle, inputs=inputs or (), out=out, options=options, progress=tell)
        return Answer(told | {"on": device.name}, lambda console: _render(told, console))
    chosen: Any = arithmetic  # api says what is accepted
    with api.load(bundle, device=on, expected_id=expected_id, arithmetic=chosen, runtime=runtime) as model:
        errors: dict[str, float] = {}
        if inputs:
            outputs = model.run_files(inputs)
        else:
            errors = model.check()
            outputs = model.run(model.bundle.samples("inputs"))
    if out is not None:
        _write(out, outputs)
    data: dict[str, Any] = {
        "id": model.bundle.id,
        "device": model.device.name,
        "arithmetic": arithmetic,
        "runtime": runtime,
        "runtime_why": runtimes.why(runtime),
        "inputs": inputs or "samples",
        "outputs": {name: summary(array) for name, array in outputs.items()},
        "written": None if out is None else str(out),
    }
    if errors:
        data |= {"errors": errors, "errors_of_half_the": halved(model.bundle)}
    return Answer(data, lambda console: _render(data, console))


def summary(array: np.ndarray) -> dict[str, Any]:
    """What a person wants to know of an output; `top`: the largest values of each sample, where it is a row."""
    import numpy as np

    told: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    numbers = array.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.all():
        told["not_finite"] = int(array.size - finite.sum())
    if finite.any():
        kept = numbers[finite]
        told |= {"min": float(kept.min()), "max": float(kept.max()), "mean": float(kept.mean())}
    if array.ndim == 2 and array.dtype.kind not in "iu" and finite.all():
        order = np.argsort(-numbers, axis=1, kind="stable")[:, :TOP]
        told["top"] = [
            [{"index": int(i), "value": float(row[i])} for i in best] for row, best in zip(numbers, order, strict=True)
        ]
    return told


def _check_file(out: Path) -> None:
    """Refuse a file that cannot be written, before the work."""
    if out.suffix != ".npz":
        raise OutputError(f"{out}: outputs are written as .npz; name the file {out.with_suffix('.npz').name}")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file, such as {out / 'outputs.npz'}")
    if not out.parent.is_dir():
        raise OutputError(f"{out} cannot be written: there is no folder {out.parent}")


def _write(out: Path, outputs: dict[str, np.ndarray]) -> None:
    """Write all outputs or nothing."""
    import numpy as np

    staging = out.with_name(f".{out.name}.tmp-{secrets.token_hex(4)}")
    try:
        with staging.open("xb") as stream:
            np.savez(stream, **outputs)  # type: ignore[arg-type]  # numpy's stub takes the arrays for allow_pickle
        os.replace(staging, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}; nothing was left behind") from error
    finally:
        staging.unlink(missing_ok=True)


def _off(errors: dict[str, float], data: dict[str, Any]) -> str:
    """How far outputs are from those promised: of a tokenizer's integers the share that are others."""
    integers = {name for name in errors if data["outputs"][name]["dtype"].startswith("int")}
    whole = integers if "ids" in integers else set()
    others = max((errors[name] for name in whole), default=0.0)
    worst = max((error for name, error in errors.items() if name not in whole), default=0.0)
    of = f"half of the {half} off" if (half := data.get("errors_of_half_the")) else "off"
    told = [f"{of} by at most {worst:.1e} of an output's largest value"] if worst else []
    told += [f"{others:.2%} of the ids are other ones"] if others else []
    return ", ".join(told) or "not one bit differs"


def _render(data: dict[str, Any], console: Console) -> None:
    rows = {"bundle": data["id"][:16], "on": f"{data['device']}, {data['runtime']}: {data['runtime_why']}"}
    if errors := data.get("errors"):
        rows["samples"] = f"as promised, {_off(errors, data)}"
    if data["written"]:
        rows["written"] = data["written"]
    console.print(pairs(rows))
    ranges = table("output", "shape", "type", "min", "mean", "max", right=("min", "mean", "max"))
    for name, told in data["outputs"].items():
        numbers = [f"{told[key]:.4g}" if key in told else "" for key in ("min", "mean", "max")]
        ranges.add_row(name, shape(tuple(told["shape"])), told["dtype"], *numbers)
    console.print(ranges)
    for name, told in data["outputs"].items():
        if told.get("not_finite"):
            console.print(f"{name}: {told['not_finite']} values are NaN or infinite", style="yellow")
        for sample, best in enumerate(told.get("top", [])):
            values = "  ".join(f"{each['index']}: {each['value']:.4g}" for each in best)
            console.print(f"[dim]largest of {name}\\[{sample}][/]  {values}", soft_wrap=True)
