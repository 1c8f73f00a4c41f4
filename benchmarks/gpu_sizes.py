"""The operators' inputs at sizes as models have them; small ones where there is no card, to try out what uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.gpu_operators import CARD, Sized
from benchmarks.gpu_timing import DEVICE, Work
from edgetok import plugins


def every() -> Iterator[Sized]:
    """Each operator that has kernels, at one size or more."""
    yield from merging()
    yield from choosing()
    yield from look_up()
    yield from attention()


def randn(*shape: int) -> torch.Tensor:
    """Seeded by its shape."""
    return torch.randn(*shape, generator=torch.Generator(DEVICE).manual_seed(sum(shape)), device=DEVICE)


def alike(name: str, dtype: torch.dtype) -> Callable[..., object]:
    """The reference with all of its floating inputs of one type: torch multiplies no others, and masks need fp32."""
    reference = plugins.load(name).reference

    def typed(value: object) -> object:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return lambda *given: reference(*map(typed, given))


def merging() -> Iterator[Sized]:
    """The first block of ViT-B at batch 32, r = 13, in fp16."""
    batch, tokens, width, r = (32, 197, 768, 13) if CARD else (1, 33, 64, 5)
    metric = torch.nn.functional.normalize(randn(batch, tokens, 64), dim=-1).half()
    a, b, none = metric[:, ::2].contiguous(), metric[:, 1::2].contiguous(), torch.zeros(1, 1, device=DEVICE).half()
    products = 2 * batch * a.shape[1] * b.shape[1] * 64
    yield Sized(f"BipartiteMatch, {batch} x {tokens} x 64, fp16", "bipartite_match", (a, b, none, none), products)
    order, match, _ = plugins.load("bipartite_match").reference(a, b, none, none)
    odd = torch.arange(1, tokens, 2, device=DEVICE).expand(batch, -1)
    whole = torch.cat([2 * order[:, r:], odd, 2 * order[:, :r]], dim=1)
    x, size = randn(batch, tokens, width).half(), torch.ones(batch, tokens, 1, device=DEVICE)
    given = x, size, whole, match[:, :r] + (a.shape[1] - r), tokens - r
    yield Sized(f"MergeTokens, {batch} x {tokens} x {width}, fp16", "merge_tokens", given, 0)


def choosing() -> Iterator[Sized]:
    """64 of LLaVA's 576 tokens, batch 8, in fp32; the references look at all that was chosen anew in every step."""
    batch, tokens, width, count = (8, 576, 1024, 64) if CARD else (1, 40, 32, 4)
    x = torch.nn.functional.normalize(randn(batch, tokens, width), dim=-1)
    one, zero, far = torch.ones(1, 1, device=DEVICE), torch.zeros(1, 1, device=DEVICE), 1e6
    eye, gain = torch.eye(tokens, device=DEVICE) * far, 1 - x @ x.mT

    def select(gain: torch.Tensor, start: torch.Tensor, count: int, objective: str) -> torch.Tensor:
        samples = torch.arange(len(gain), device=DEVICE)
        chosen, worth, barred = [start.argmax(dim=1)], torch.full_like(start, far), torch.zeros_like(start)
        for _ in range(count - 1):
            worth = torch.minimum(worth, gain[samples, chosen[-1]])
            barred.scatter_(1, chosen[-1][:, None], far)
            chosen.append((worth - barred).argmax(dim=1))
        return torch.stack(chosen, dim=1)

    def points(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: int) -> torch.Tensor:
        cosine = x @ x.mT
        nearest = (1 - (cosine - eye).amax(dim=2)) * weight + bias
        return select(1 - cosine, nearest, count, "max_min")

    shape = f"{count} of {batch} x {tokens}"
    flops = 2 * batch * tokens * tokens * width
    yield Sized(f"FarthestPoints, {shape} x {width}, fp32", "farthest_points", (x, one, zero, count), flops,
                eager=points)  # fmt: skip
    given = gain, gain.amin(dim=2), count, "max_min"
    rows = batch * count * tokens * 4  # of the gain, those of the chosen
    yield Sized(f"GreedySelect, {shape}, fp32", "greedy_select", given, 0, moved=rows, eager=select)


def look_up() -> Iterator[Sized]:
    """4 bits in blocks of 16, against weights in fp16: one token, a few, a picture, eight pictures."""
    inner, outputs = (4096, 4096) if CARD else (64, 48)
    codes = torch.randint(0, 256, (outputs, inner // 2), dtype=torch.uint8, device=DEVICE)
    codebook, scales = randn(1, 1, 16), torch.rand(outputs, inner // 16, 1, device=DEVICE).half()
    weights = randn(outputs, inner).half()
    for rows in (1, 16, 197, 1576) if CARD else (1, 5, 20):
        given = randn(rows, inner).half()

        def product(given: torch.Tensor = given) -> torch.Tensor:
            return given @ weights.mT

        yield Sized(
            f"LutMatMul, {rows} x {inner} x {outputs}, 4 bits, fp16", "lut_matmul",
            (given, codes, codebook, scales, 4, inner), 2 * rows * inner * outputs,
            eager=alike("lut_matmul", torch.float16), rival=("matmul in fp16", product),
        )  # fmt: skip


def attention() -> Iterator[Sized]:
    """A quarter of the keys, 16 heads, fp16, against torch's fused dense attention."""
    heads, tokens = (16, 4096) if CARD else (2, 256)
    for width, of_q, of_k, stages in ((64, 64, 128, 3), (128, 128, 64, 3)):
        q, k, v = randn(3, 1, heads, tokens, width).half()
        rows, blocks = tokens // of_q, tokens // of_k
        drawn = torch.rand(1, heads, rows, blocks, device=DEVICE).argsort(dim=-1)[..., : blocks // 4]
        idx, cnt = drawn.sort(dim=-1).values.int(), torch.full((1, heads, rows), blocks // 4, device=DEVICE).int()
        given: tuple[Any, ...] = q, k, v, idx, cnt, torch.zeros(1, 1, device=DEVICE), of_q, of_k, width**-0.5, 0, -1, 0
        options = {"known": True, "tile_k": of_k, "warps": 4 if of_q == 64 else 8, "stages": stages}
        yield Sized(
            f"BlockSparseAttention, {heads} x {tokens} x {width}, 25 % of blocks of {of_q} x {of_k}, fp16",
            "block_sparse_attention", given, heads * tokens * tokens * width, options=options,
            eager=alike("block_sparse_attention", torch.float32), rival=("fused dense", dense(q, k, v)),
        )  # fmt: skip
    tokens = tokens if CARD else 64
    q, k, v = randn(3, 1, heads, tokens, 64).half()
    for of_q in (1, 64):
        most, rows = tokens // 16, tokens // of_q
        idx = torch.rand(1, heads, rows, tokens, device=DEVICE).argsort(dim=-1)[..., :most].int().contiguous()
        cnt = torch.full((1, heads, rows), most, device=DEVICE).int()
        given = q, k, v, idx, cnt, torch.zeros(1, 1, device=DEVICE), of_q, 0.125, 0
        yield Sized(
            f"TokenSparseAttention, {heads} x {tokens} x 64, {most} keys for each {of_q} queries, fp16",
            "token_sparse_attention", given, 4 * heads * tokens * most * 64,
            eager=alike("token_sparse_attention", torch.float32), rival=("fused dense", dense(q, k, v)),
        )  # fmt: skip


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Work:
    """torch's own choice among its fused kernels."""
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)
