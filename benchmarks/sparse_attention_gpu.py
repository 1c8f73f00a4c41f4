"""BlockSparseAttention on a real card against torch's fused dense attention.

    PYTHONPATH=. python benchmarks/sparse_attention_gpu.py [--tokens 1024 4096 16384]

Times by CUDA events, in turns, each side as a CUDA graph; "dense" is the fastest of torch's fused backends. Lists are
random, sorted, as long as the density says; the kernel's tiles are chosen from a few at 4096 tokens and full density.
Memory: what is allocated at most beyond the inputs.
"""

from __future__ import annotations

import argparse
from itertools import product

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_timing import Work, graphed, interleaved
from edgetok.plugins import gpu

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
HEADER = "| side | microseconds [quartiles] | times as fast | TFLOP/s | MB |\n|---|---|---|---|---|"


def lists(heads: int, tokens: int, of_q: int, of_k: int, density: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Random lists of blocks, (1, heads, Q, M) and their counts."""
    rows, blocks = tokens // of_q, tokens // of_k
    kept = max(1, round(density * blocks))
    drawn = torch.rand(1, heads, rows, blocks, device="cuda").argsort(dim=-1)[..., :kept]
    counts = torch.full((1, heads, rows), kept, dtype=torch.int32, device="cuda")
    return drawn.sort(dim=-1).values.int().contiguous(), counts


def kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, density: float, of_q: int, of_k: int, **tuned: int
) -> Work:
    """The kernel on lists of that density."""
    idx, cnt = lists(q.shape[1], q.shape[2], of_q, of_k, density)
    bias, scale = torch.zeros(1, 1, device="cuda"), q.shape[3] ** -0.5
    attend = gpu.run("block_sparse_attention")
    return lambda: attend(q, k, v, idx, cnt, bias, of_q, of_k, scale, 0, -1, 0, known=True, **tuned)


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, Work]:
    """torch's fused backends that take these tensors."""
    found: dict[str, Work] = {}
    for name, backend in BACKENDS.items():

        def work(backend: SDPBackend = backend) -> None:
            with sdpa_kernel(backend):
                torch.nn.functional.scaled_dot_product_attention(q, k, v)

        try:
            work()
            found[name] = graphed(work) or work
        except RuntimeError as error:
            print(f"dense, {name}: {str(error).splitlines()[0][:100]}")
    return found


def tuned(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, int]:
    """The fastest blocks and tiles at full density."""
    sides, settings = {}, {}
    for of_q, of_k, warps, stages in product((64, 128), (64, 128), (4, 8), (2, 3, 4)):
        name = f"blocks {of_q} x {of_k}, {warps} warps, {stages} stages"
        own = {"of_q": of_q, "of_k": of_k, "tile_k": of_k, "warps": warps, "stages": stages}
        try:
            work = kernel(q, k, v, 1.0, **own)
            work()
            torch.cuda.synchronize()
            sides[name], settings[name] = work, own
        except Exception as error:  # too much shared memory, say
            print(f"{name}: {str(error).splitlines()[0][:90]}")
    times = interleaved(sides, rounds=3, runs=3)
    for name, (_, middle, _) in sorted(times.items(), key=lambda each: each[1][1])[:6]:
        print(f"{middle:.0f} us: {name}")
    return settings[min(times, key=lambda name: times[name][1])]


def main() -> None:
    """Print a table for each width and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16384])
    chosen = parser.parse_args()
    print(torch.cuda.get_device_name())
    for width in (64, 128):
        best: dict[str, int] = {}
        for tokens in sorted(chosen.tokens, key=lambda n: n != 4096):
            batch = max(1, 16384 // tokens)
            q, k, v = torch.randn(3, batch, 16, tokens, width, device="cuda").half()
            best = best or tuned(q, k, v)
            sides = dense(q, k, v)
            for density in (1.0, 0.5, 0.25, 0.125):
                work = kernel(q, k, v, density, **best)
                sides[f"{density:.1%} of the blocks"] = graphed(work) or work
            times = interleaved(sides, rounds=9, runs=5)
            fused = min(times[name][1] for name in times if name in BACKENDS)
            print(f"\n{batch} x 16 heads of {width}, {tokens} tokens, fp16\n\n{HEADER}")
            for name, (low, middle, high) in times.items():
                share = 1.0 if name in BACKENDS else float(name.split("%")[0]) / 100
                flops = 4 * batch * 16 * tokens * tokens * width * share
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                if name in BACKENDS:
                    with sdpa_kernel(BACKENDS[name]):
                        torch.nn.functional.scaled_dot_product_attention(q, k, v)
                else:
                    kernel(q, k, v, share, **best)()
                held = (torch.cuda.max_memory_allocated() - before) / 1e6
                took, rate = f"{middle:.0f} [{low:.0f}, {high:.0f}]", flops / middle * 1e-6
                print(f"| {name} | {took} | {fused / middle:.2f} | {rate:.0f} | {held:.0f} |", flush=True)


if __name__ == "__main__":
    main()
