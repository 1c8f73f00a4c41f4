"""Load, check, run and profile every bundle of a folder, as a device without PyTorch does.

python tests/portable/check_bundles.py FOLDER
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

import edgetok


def run_plainly(bundle: Path) -> None:
    """Run model.onnx as somebody without edgetok would, and compare with the outputs that the bundle promises."""
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = load_file(bundle / "samples" / "expected.safetensors")
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(expected), f"{bundle.name} gives {names} and promises {sorted(expected)}"
    outputs = session.run(names, load_file(bundle / "samples" / "inputs.safetensors"))
    for name, output in zip(names, outputs, strict=True):
        error = np.abs(output - expected[name]).max() / np.abs(expected[name]).max()
        assert error <= 1e-4, f"{bundle.name}: {name} is off by {error:.1e} of its largest value"


def command(*arguments: str) -> None:
    """Run the installed `edgetok ... --json`: it must succeed and print one JSON document."""
    program = Path(sys.executable).with_name("edgetok")
    done = subprocess.run([program, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    json.loads(done.stdout)


def main(folder: Path) -> None:
    """Check every bundle; the first thing that fails ends it."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {python}, onnxruntime {onnxruntime.__version__}, {edgetok.__file__}", flush=True)
    assert find_spec("torch") is None, "this is to show that no PyTorch is needed, and it is installed"
    bundles = sorted(file.parent for file in folder.glob("*/manifest.json"))
    assert bundles, f"no bundle in {folder}"
    for bundle in bundles:
        run_plainly(bundle)
        model = edgetok.load(bundle)
        model.check()
        command("run", str(bundle))
        command("profile", str(bundle))
        if model.bundle.manifest.weights:
            command("run", str(bundle), "--arithmetic", "a8")
        print(f"{bundle.name}: loads, checks, runs, profiles", flush=True)
    print(f"{len(bundles)} bundles passed", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
