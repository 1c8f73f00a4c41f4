"""Encoders of tokenizers with a large codebook: all distances at once, and NearestCode, in time and in memory.

    PYTHONPATH=. python benchmarks/codebook_search.py emu3 janus tokenflow dac [--rounds 7] [--threads 1]

Models as transformers and edgetok.modules build them, codebook, channels of its rows and tokens of the published ones;
the convolutions have a quarter of the channels and drawn weights, which change no search. Each encoder is captured
twice, without and with `edgetok.rewrite.nearest_code`; for `dac`, whose 1024 codes are below what pays, the search is
made NearestCode all the same. "native" is the second with the C++ operator.

Times: a whole encode, all sides in one process, in turns; a ratio above 1 says that the side is faster than all
distances. Memory: a process for each side, VmHWM on three runs beyond VmRSS behind the loading. Ids against PyTorch's.
Linux with glibc only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from benchmarks.nearest_code import megabytes
from edgetok import native, normalise, plugins, statistics, timing
from edgetok.exporters.sources import CaptureOptions
from edgetok.exporters.sources.tokenizer import capture_tokenizer
from edgetok.model import Captured, Origin
from edgetok.rewrite import nearest_code
from edgetok.tokenizer import family as families

SIDES = ("distances", "NearestCode", "native")


def emu3() -> Any:
    """32768 codes of 4 channels, 4096 tokens for 512 x 512 pixels."""
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    return Emu3VQVAE(Emu3VQVAEConfig(base_channels=64))


def janus() -> Any:
    """16384 codes of 8 channels, 576 tokens for 384 x 384 pixels."""
    from transformers import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    return JanusVQVAE(JanusVQVAEConfig(base_channels=32, num_patches=24))


def tokenflow() -> Any:
    """32768 codes of 40 channels, 2227 tokens at 15 scales for 384 x 384 pixels."""
    from edgetok.modules.tokenflow import TokenFlow, TokenFlowConfig

    return TokenFlow(TokenFlowConfig(width=288, hidden=1076, layers=7, heads=4, channels=32, z_channels=64))


def dac() -> Any:
    """Nine levels of 1024 codes of 8 channels, 87 tokens for a second at 44.1 kHz."""
    from transformers import DacConfig, DacModel

    return DacModel(DacConfig(encoder_hidden_size=16, downsampling_ratios=[2, 4, 8, 8], sampling_rate=44100))


MODELS: dict[str, Callable[[], Any]] = {"emu3": emu3, "janus": janus, "tokenflow": tokenflow, "dac": dac}


def captured(name: str, fused: bool) -> Captured:
    """The encoder, with or without NearestCode, and a batch of one that is much like a real signal."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight)
    family = families.family_of(model)
    assert family is not None
    length, always = (44100 if name == "dac" else None), mock.patch.object(nearest_code, "pays", lambda *_: True)
    never = mock.patch.object(normalise, "fuse_nearest_code", lambda _: None)
    with (always if name == "dac" else nullcontext()) if fused else never:
        return capture_tokenizer(model, family, Origin("callable", name), CaptureOptions(batch=1, length=length))


def opened(file: Path, side: str, threads: int) -> onnxruntime.InferenceSession:
    """The graph of a side."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if side == "native":
        options.register_custom_ops_library(str(native.library()))
    return onnxruntime.InferenceSession(str(file), options)


def peak(file: str, side: str, threads: str) -> float:
    """Megabytes on three runs, in a process of its own."""
    session = opened(Path(file), side, int(threads))
    feeds = dict(np.load(Path(file).with_name("feeds.npz")))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = megabytes("VmRSS")
    for _ in range(3):
        session.run(["ids"], feeds)
    return megabytes("VmHWM") - before


def table(name: str, folder: Path, rounds: int, threads: int) -> None:
    """Print a model's lines."""
    files = {}
    for side, fused in (("distances", False), ("NearestCode", True)):
        encoder = captured(name, fused)
        plugins.add_functions(encoder.model)
        files[side] = folder / f"{side}.onnx"
        ir.save(encoder.model, files[side])
    files["native"] = files["NearestCode"]
    feeds = {key: array[:1] for key, array in encoder.example.items()}
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    wanted = encoder.reference(feeds)["ids"]
    runs = {side: opened(file, side, threads) for side, file in files.items()}
    for session in runs.values():
        session.run(["ids"], feeds)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    for _ in range(rounds):
        for side, session in runs.items():
            times[side] += timing.sample(partial(session.run, ["ids"], feeds), 1, clock=clock)
    for side, own in times.items():
        ratio = statistics.ratio(list(zip(times["distances"], own, strict=True)))
        command = [sys.executable, __file__, "--one", str(files[side]), side, str(threads)]
        held = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        other = int((runs[side].run(["ids"], feeds)[0] != wanted).sum())
        print(f"| {name} | {side} | {median(own):.1f} | {ratio} | {held:.0f} | {other} of {wanted.size} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="which encoders")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(peak(*chosen.one))
        return
    print("| encoder | side | ms | times as fast as distances | MB | other ids than PyTorch |")
    print("|---|---|---|---|---|---|")
    for name in chosen.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            table(name, Path(folder), chosen.rounds, chosen.threads)


if __name__ == "__main__":
    main()
