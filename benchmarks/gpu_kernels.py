"""The GPU kernels on a real card: right on every case, and how fast.

    PYTHONPATH=. python benchmarks/gpu_kernels.py        # torch with CUDA and Triton; edgetok need not be installed

First every operator on every case of its plugin, in fp32 and fp16, against the plain PyTorch reference in fp64. Then
times by CUDA events, median and interquartile range of interleaved rounds: "eager" launches the reference's operators
one by one, "graph" replays them as a CUDA graph, which takes the host out; the same for the kernels. The merging of 12
blocks of ViT-B (batch 32, fp16, r = 13) stands beside the whole ViT-B of transformers, built from its config.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median, quantiles

import torch

from edgetok import plugins
from edgetok.plugins import gpu

BATCH, TOKENS, WIDTH, HEAD, BLOCKS, R = 32, 197, 768, 64, 12, 13
Work = Callable[[], object]


def to_card(value: object, half: bool) -> object:
    """A tensor on the card, floating ones in fp16 where that is asked."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.cuda().half() if half and value.is_floating_point() else value.cuda()


def check(name: str, case: str, arguments: tuple[object, ...], half: bool) -> str:
    """Run a case; the largest relative error of its outputs, or how many choices differ."""
    inputs = [to_card(value, half) for value in arguments]
    exact = [
        value.cpu().double() if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value.cpu() if isinstance(value, torch.Tensor) else value
        for value in inputs
    ]  # fmt: skip
    wanted, got = plugins.load(name).reference(*exact), gpu.run(name)(*inputs)
    told = []
    pairs = zip(*((each,) if isinstance(each, torch.Tensor) else each for each in (wanted, got)), strict=True)
    for want, have in pairs:
        have = have.cpu()
        if want.is_floating_point():
            told.append(f"{float((want - have.double()).abs().max() / want.abs().max().clamp_min(1e-30)):.1e}")
        else:
            told.append(f"{int((want != have).sum())} of {want.numel()} differ")
    return ", ".join(told)


def cases() -> None:
    """Print a line for each operator, case and type."""
    print("| operator | case | type | error |\n|---|---|---|---|")
    for name in gpu.names():
        for case, arguments in plugins.load(name).cases():
            for half in (False, True):
                try:
                    told = check(name, case, arguments, half)
                except Exception as error:  # the rest is to be seen all the same
                    told = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
                print(f"| {name} | {case} | {'fp16' if half else 'fp32'} | {told} |", flush=True)


def graphed(work: Work) -> Work | None:
    """The work as a CUDA graph; None where it cannot be one."""
    try:
        return _graphed(work)
    except Exception as error:
        print(f"no CUDA graph: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        return None


def _graphed(work: Work) -> Work:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay(_of: Work = work) -> None:  # whose tensors the graph reads
        graph.replay()

    return replay


def interleaved(sides: dict[str, Work], rounds: int = 15, runs: int = 20) -> dict[str, tuple[float, float, float]]:
    """Microseconds of each side: quartiles of the rounds, in each of which every side runs in a row."""
    for work in sides.values():
        for _ in range(3):
            work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            for _ in range(runs):
                work()
            end.record()
            torch.cuda.synchronize()
            times[name].append(1e3 * start.elapsed_time(end) / runs)
    return {name: (quantiles(each, n=4)[0], median(each), quantiles(each, n=4)[2]) for name, each in times.items()}


def table(title: str, sides: dict[str, Work | None], runs: int = 20) -> dict[str, float]:
    """Print a table; the first side is what the others are set against."""
    known = {}
    for name, work in sides.items():
        try:
            if work is not None:
                work()
                torch.cuda.synchronize()
                known[name] = work
        except Exception as error:
            print(f"{title}, {name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
    found = interleaved(known, runs=runs)
    first = next(iter(found.values()))[1]
    print(f"\n{title}\n\n| side | microseconds [quartiles] | times as fast |\n|---|---|---|")
    for name, (low, middle, high) in found.items():
        print(f"| {name} | {middle:.1f} [{low:.1f}, {high:.1f}] | {first / middle:.2f} |", flush=True)
    return {name: each[1] for name, each in found.items()}


def merging(run_match: Callable[..., tuple[torch.Tensor, ...]], run_merge: Callable[..., object], glue: bool) -> Work:
    """Match and merge of 12 blocks, each with fewer tokens; with `glue` also the order between them, as ToMe has it."""
    seeded = torch.Generator("cuda").manual_seed(0)
    steps = []
    for block in range(BLOCKS):
        tokens = TOKENS - R * block
        metric = torch.randn(BATCH, tokens, HEAD, generator=seeded, device="cuda")
        metric = torch.nn.functional.normalize(metric, dim=-1).half()
        x = torch.randn(BATCH, tokens, WIDTH, generator=seeded, device="cuda").half()
        size = torch.ones(BATCH, tokens, 1, device="cuda")
        a, b = metric[:, ::2].contiguous(), metric[:, 1::2].contiguous()
        none = torch.zeros(1, 1, device="cuda").half()
        odd = torch.arange(1, tokens, 2, device="cuda").expand(BATCH, -1)
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


def tuned(match: Callable[..., tuple[torch.Tensor, ...]], merge: Callable[..., object]) -> None:
    """Print the fastest tiles of each kernel, by the 12 blocks as a graph."""
    from functools import partial
    from itertools import product

    sides: dict[str, Work | None] = {}
    shapes = ((16, 64, 4), (16, 128, 4), (32, 64, 4), (32, 128, 4), (32, 128, 8), (64, 64, 4), (64, 128, 8))
    for tile_a, tile_k, warps in shapes:
        own = partial(match, tile_a=tile_a, tile_k=tile_k, warps=warps)
        sides[f"match {tile_a} x {tile_k}, {warps} warps"] = graphed(merging(own, lambda *_: None, False))
    for rows, channels, warps in product((16, 32), (128, 256), (4, 8)):
        own = partial(merge, rows=rows, channels=channels, warps=warps)
        sides[f"merge {rows} x {channels}, {warps} warps"] = graphed(merging(lambda *_: (None,) * 3, own, False))
    times = interleaved({name: work for name, work in sides.items() if work}, rounds=3, runs=5)
    for name, (_, middle, _) in sorted(times.items(), key=lambda each: (each[0][:5], each[1][1])):
        print(f"{middle:.0f} us: {name}")


def vit() -> Work:
    """ViT-B/16 of transformers, seeded, in fp16, batch 32."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    model = ViTModel(ViTConfig(), add_pooling_layer=False).half().cuda().eval()
    pictures = torch.randn(BATCH, 3, 224, 224, device="cuda").half()

    def work() -> None:
        with torch.inference_mode():
            model(pictures)

    return work


def others() -> None:
    """The other operators at sizes as models have them."""
    seeded = torch.Generator("cuda").manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(8, 576, 1024, generator=seeded, device="cuda"), dim=-1)
    one, zero = torch.ones(1, 1, device="cuda"), torch.zeros(1, 1, device="cuda")
    eye = torch.eye(576, device="cuda") * 1e6
    gain = 1 - x @ x.mT

    def eager_points() -> None:  # choosing as below: the references look at all that was chosen anew in every step
        cosine = x @ x.mT
        nearest = (1 - (cosine + zero[:, None] - eye).amax(dim=2)) * one + zero
        eager_select(1 - cosine, nearest, 64)

    def eager_select(gain: torch.Tensor, start: torch.Tensor, count: int) -> None:
        samples = torch.arange(len(gain), device="cuda")
        chosen, worth, barred = start.argmax(dim=1), torch.full_like(start, 1e6), torch.zeros_like(start)
        for _ in range(count - 1):
            worth = torch.minimum(worth, gain[samples, chosen])
            barred.scatter_(1, chosen[:, None], 1e6)
            chosen = (worth - barred).argmax(dim=1)

    points, select = gpu.run("farthest_points"), gpu.run("greedy_select")
    start = gain.amin(dim=2)
    table(
        "FarthestPoints: 64 of 576 tokens of 1024, batch 8, fp32",
        {"eager": eager_points, "kernels": lambda: points(x, one, zero, 64)}, runs=3,
    )  # fmt: skip
    table(
        "GreedySelect: 64 of 576, batch 8, fp32",
        {"eager": lambda: eager_select(gain, start, 64), "kernel": lambda: select(gain, start, 64, "max_min")}, runs=3,
    )  # fmt: skip
    product = gpu.run("lut_matmul")

    def unpacked(
        given: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        index = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(1).int()
        weights = codebook.half().flatten()[index].unflatten(1, (-1, 16)) * scales
        return given @ weights.flatten(1).mT

    for rows in (1, 16, 197, 1576):
        size = 4096
        codes = torch.randint(0, 256, (size, size // 2), dtype=torch.uint8, device="cuda")
        codebook = torch.randn(1, 1, 16, device="cuda")
        scales = torch.rand(size, size // 16, 1, device="cuda").half()
        given = torch.randn(rows, size, device="cuda").half()
        weights = torch.randn(size, size, device="cuda").half()
        found = table(
            f"LutMatMul, 4 bits in blocks of 16, {rows} rows, 4096 x 4096, fp16",
            {
                "matmul in fp16": graphed(lambda given=given, weights=weights: given @ weights.mT),
                "unpacked and multiplied, eager": graphed(
                    lambda given=given, codes=codes, codebook=codebook, scales=scales: unpacked(
                        given, codes, codebook, scales
                    )
                ),
                "kernel": graphed(
                    lambda given=given, codes=codes, codebook=codebook, scales=scales: product(
                        given, codes, codebook, scales, 4, 4096
                    )
                ),
            },
        )
        moved = size * size * 0.5 + size * size / 16 * 2
        flops = 2 * rows * size * size
        took = found["kernel"]
        print(f"kernel: {moved / took * 1e-3:.0f} GB/s of codes and scales, {flops / took * 1e-6:.1f} TFLOP/s")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-cases", action="store_true")
    parser.add_argument("--tune", action="store_true", help="only print the fastest tiles of match and merge")
    chosen = parser.parse_args()
    import triton

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}\n")
    if not chosen.no_cases:
        cases()
    match, merge = plugins.load("bipartite_match").reference, plugins.load("merge_tokens").reference
    own_match, own_merge = gpu.run("bipartite_match"), gpu.run("merge_tokens")
    if chosen.tune:
        tuned(own_match, own_merge)
        return
    whole = vit()
    for glue in (False, True):
        order = ", with ToMe's order between them" if glue else ""
        eager, kernels = merging(match, merge, glue), merging(own_match, own_merge, glue)
        compiled = merging(torch.compile(match, dynamic=True), torch.compile(merge, dynamic=True), glue)
        found = table(
            f"Match + merge of {BLOCKS} blocks of ViT-B, batch {BATCH}, fp16, r = {R}{order}",
            {
                "eager": eager, "eager, graph": graphed(eager), "torch.compile": compiled, "kernels": kernels,
                "kernels, graph": graphed(kernels), "ViT-B itself": whole,
            },
            runs=5,
        )  # fmt: skip
        for side in ("kernels", "kernels, graph"):
            if side in found and "ViT-B itself" in found:
                print(f"{side}: {found[side] / found['ViT-B itself']:.1%} of ViT-B itself")
    others()


if __name__ == "__main__":
    main()
