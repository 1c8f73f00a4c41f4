"""The target on a data-centre card: match and merge of ViT-B's 12 blocks against the reference, and against the ViT.

Batch 32, fp16, r = 13; every side launched one by one and as a CUDA graph, the ViT too. The target: at least 5 times as
fast as the eager reference, and under 10 % of the ViT's own time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import product

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_timing import DEVICE, Work, first_line, graphed, interleaved
from edgetok import plugins
from edgetok.plugins import gpu

CARD = DEVICE == "cuda"
BATCH, TOKENS, WIDTH, HEAD, BLOCKS, R = (32, 197, 768, 64, 12, 13) if CARD else (1, 33, 64, 16, 2, 5)
GRAPH = ", graph"
FUSED = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
Match = Callable[..., tuple[torch.Tensor, ...]]
Merge = Callable[..., object]


def merging(run_match: Match, run_merge: Merge, glue: bool) -> Work:
    """Match and merge of 12 blocks, each with fewer tokens; with `glue` also the order between them, as ToMe has it."""
    seeded = torch.Generator(DEVICE).manual_seed(0)
    steps = []
    for block in range(BLOCKS):
        tokens = TOKENS - R * block
        metric = torch.randn(BATCH, tokens, HEAD, generator=seeded, device=DEVICE)
        metric = torch.nn.functional.normalize(metric, dim=-1).half()
        x = torch.randn(BATCH, tokens, WIDTH, generator=seeded, device=DEVICE).half()
        size = torch.ones(BATCH, tokens, 1, device=DEVICE)
        a, b = metric[:, ::2].contiguous(), metric[:, 1::2].contiguous()
        none = torch.zeros(1, 1, device=DEVICE).half()
        odd = torch.arange(1, tokens, 2, device=DEVICE).expand(BATCH, -1)
        order, match, _ = plugins.load("bipartite_match").reference(a, b, none, none)
        steps.append((x, size, a, b, none, odd, order, match))

    def joined(order: torch.Tensor, match: torch.Tensor, odd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        twice = order * 2
        return torch.cat([twice[:, R:], odd, twice[:, :R]], dim=1), match[:, :R] + (order.shape[1] - R)

    prepared = [(*joined(order, match, odd), x.shape[1] - R) for x, _, _, _, _, odd, order, match in steps]

    def work() -> None:
        for (x, size, a, b, none, odd, _, _), (whole, into, kept) in zip(steps, prepared, strict=True):
            order, match, _ = run_match(a, b, none, none)
            if glue:
                whole, into = joined(order, match, odd)
            run_merge(x, size, whole, into, kept)

    return work


def tuned(match: Match, merge: Merge) -> None:
    """Print the fastest tiles of each kernel, by the 12 blocks as a graph."""
    sides: dict[str, Work | None] = {}
    nothing = torch.empty(0)
    shapes = ((16, 64, 4), (16, 128, 4), (32, 64, 4), (32, 128, 4), (32, 128, 8), (64, 64, 4), (64, 128, 8))
    for tile_a, tile_k, warps in shapes:
        matched = partial(match, tile_a=tile_a, tile_k=tile_k, warps=warps)
        sides[f"match {tile_a} x {tile_k}, {warps} warps"] = graphed(merging(matched, lambda *_: None, False))
    for rows, channels, warps in product((16, 32), (128, 256), (4, 8)):
        merged = partial(merge, rows=rows, channels=channels, warps=warps)
        sides[f"merge {rows} x {channels}, {warps} warps"] = graphed(merging(lambda *_: (nothing,) * 3, merged, False))
    times = interleaved({name: work for name, work in sides.items() if work}, rounds=3, runs=5)
    for name, (_, middle, _) in sorted(times.items(), key=lambda each: (each[0][:5], each[1][1])):
        print(f"{middle:.0f} us: {name}")


def vit() -> Work:
    """ViT-B/16 of transformers, seeded, in fp16, batch 32; a tiny one where there is no card.

    Attention is fused whatever torch would choose: in a CUDA graph that was products in fp32, three times as slow.
    """
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig() if CARD else ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    model = ViTModel(config, add_pooling_layer=False).half().to(DEVICE).eval()
    pictures = torch.randn(BATCH, 3, 224, 224, device=DEVICE).half()

    def work() -> None:
        with torch.inference_mode(), sdpa_kernel(FUSED) if CARD else nullcontext():
            model(pictures)

    return work


def target(glue: bool) -> dict[str, dict[str, float]]:
    """Microseconds of every side, quartiles by their names; printed as well.

    Args:
        glue: with ToMe's order of tokens between match and merge, which is torch's on both sides.
    """
    names = "bipartite_match", "merge_tokens"
    match, merge = (plugins.load(name).reference for name in names)
    own_match, own_merge = (gpu.run(name) for name in names)
    sides = {
        "eager": merging(match, merge, glue), "kernels": merging(own_match, own_merge, glue), "ViT-B itself": vit(),
    }  # fmt: skip
    sides |= {name + GRAPH: made for name, work in sides.items() if (made := graphed(work))}
    if CARD:
        match, merge = (torch.compile(each, dynamic=True) for each in (match, merge))
        sides["torch.compile"] = merging(match, merge, glue)
    for name, work in list(sides.items()):
        try:
            work()
        except Exception as error:
            print(f"{name}: {first_line(error)}")
            del sides[name]
    found = {
        name: {"low": low, "median": middle, "high": high}
        for name, (low, middle, high) in interleaved(sides, *((15, 5) if CARD else (2, 1))).items()
    }
    order = ", with ToMe's order between them" if glue else ""
    print(f"\nMatch + merge of {BLOCKS} blocks of ViT-B, batch {BATCH}, fp16, r = {R}{order}\n")
    print("| side | microseconds [quartiles] |\n|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each['median']:.1f} [{each['low']:.1f}, {each['high']:.1f}] |")
    for how in ("", GRAPH):
        if all(name + how in found for name in ("eager", "kernels", "ViT-B itself")):
            eager, kernels, whole = (found[name + how]["median"] for name in ("eager", "kernels", "ViT-B itself"))
            told = "as graphs" if how else "launched one by one"
            print(f"{told}: {eager / kernels:.2f} times as fast as eager, {kernels / whole:.1%} of the ViT's own time")
    return found
