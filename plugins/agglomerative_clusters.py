"""AgglomerativeClusters: the two closest clusters are merged until a fixed number is left.

The clustering of ATC (Agglomerative Token Clustering, https://arxiv.org/abs/2409.11923, section 3.2), distance = 1 -
cosine; linkage single (closest pair of tokens), complete (farthest pair) or average (mean over all pairs). Clusters are
numbered by their lowest tokens, and a cluster's lowest token stands for it.

The partition is that of the sequential algorithm, in far fewer steps. These linkages are reducible: a merged cluster is
no closer to a third than the closer of its parts. So two clusters that are each other's nearest are merged sooner or
later, whatever else is, and all such pairs can be merged in one round. Heights only grow, so the N - count lowest
merges are the sequential ones; the rounds end when nothing is closer than the highest of these. Equal distances: the
lower index first; where several merges have one height, the sequential algorithm may split differently.

Of 257 tokens 0.9, 0.7, 0.5, 0.25 kept, one core, batch 1: average 0.7, 1.0, 1.5, 1.9 ms; complete 0.6, 0.9, 1.5, 1.8;
single 0.8, 1.8, 2.8, 6.1, because chains need a round per link. 197 tokens, average: 0.6, 0.7, 0.9, 1.5. Batch 8 goes
on until its last sample is done and leaves the cache: 257 tokens, average 11, 17, 16, 26; a second core takes a third
off. With dinov2-s14's keys, where the model takes 40 ms: 16 of 257 tokens in each of 12 blocks 3.6 ms (complete 3.1,
single 4.6); 0.7 kept in blocks 3, 6, 9 1.7 ms (complete 1.7, single 3.9). In C++ (native/) 257 tokens, 241, 128 or 64
kept, by any linkage: 0.14, 0.33, 0.4 to 0.6 ms; batch 8 1.2, 3.0, 4 to 5 on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, no_type_check

from onnxscript import BOOL, FLOAT, INT64, graph, script
from onnxscript import opset23 as op
from onnxscript.values import Opset

if TYPE_CHECKING:
    import torch


@no_type_check  # onnxscript reads the body, Python never runs it
@script(Opset("edgetok", 1), default_opset=op)
def AgglomerativeClusters(x, padding, count: int, linkage: str):
    """x (B, N, d), padding (1 or B, 1 or N) -> label (B, N) int64, below count."""
    single = op.Equal(op.Constant(value_string=linkage), op.Constant(value_string="single"))
    complete = op.Equal(op.Constant(value_string=linkage), op.Constant(value_string="complete"))
    zero, one, clusters = op.Constant(value_int=0), op.Constant(value_int=1), op.Constant(value_int=count)
    rows, columns = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
    gone, unmade = op.Constant(value_float=1e9), op.Constant(value_float=1e3)  # above every distance
    tokens = op.Shape(x, start=1, end=2)
    merges = tokens - clusters  # (1,)
    ids = op.Unsqueeze(op.Range(zero, op.Squeeze(tokens), one), op.Constant(value_ints=[0]))  # (1, N)
    own = op.EyeLike(op.ConstantOfShape(op.Concat(tokens, tokens, axis=0))) * (gone + gone) - gone  # (N, N)

    left, right = op.Unsqueeze(padding, columns), op.Unsqueeze(padding, rows)
    apart = op.Constant(value_float=100.0) * (left + right) - op.Constant(value_float=204.0) * left * right
    cosine = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1]))
    distances = op.Max(op.Constant(value_float=1.0) + apart - cosine, own)  # (B, N, N)
    closest = op.ReduceMin(distances, columns, keepdims=0)  # (B, N)
    flat = op.Shape(x, start=0, end=2)
    tree, unmade_all = op.Expand(ids, flat), op.Expand(unmade, flat)
    ones, no_limit = op.Expand(op.Constant(value_float=1.0), flat), op.ReduceMax(unmade_all, rows)

    @graph()
    def merge_round(
        i: INT64, go: BOOL, distance: FLOAT[...], nearest: FLOAT[...], size: FLOAT[...], parent: INT64[...],  # type: ignore[misc, type-arg]
        height: FLOAT[...], limit: FLOAT[...], rounds: INT64,  # type: ignore[misc, type-arg]
    ):  # fmt: skip
        neighbour = op.ArgMin(distance, axis=2, keepdims=0)
        mutual = op.And(op.Equal(op.GatherElements(neighbour, neighbour, axis=1), ids), nearest <= limit)
        partner = op.Where(mutual, neighbour, ids)  # (B, N), the token itself where nothing is merged
        absorbed = partner < ids
        heights = op.Where(absorbed, nearest, height)

        added = op.GatherElements(size, partner, axis=1)
        share = op.Unsqueeze(added / (size + added), columns)
        index = op.Unsqueeze(partner, columns)
        others = op.GatherND(distance, index, batch_dims=1)
        if single:  # the conditions are constants: onnxruntime drops the branches
            half = op.Min(distance, others)
        else:
            if complete:
                half = op.Max(distance, others)
            else:
                half = distance + share * (others - distance)
        out = op.Unsqueeze(op.Where(absorbed, gone, -gone), columns)
        half = op.Transpose(op.Max(half, out), perm=[0, 2, 1])
        others = op.GatherND(half, index, batch_dims=1)
        if single:
            merged = op.Max(op.Min(half, others), own)
        else:
            if complete:
                merged = op.Max(half, others)
            else:
                merged = half + share * (others - half)  # on the diagonal at least gone / N
        now = op.Max(merged, op.Transpose(merged, perm=[0, 2, 1]))  # rows of the absorbed; symmetric to the last bit

        # Not "_": TensorRT-RTX 1.7.1 takes that name for one of its own.
        lowest, _places = op.TopK(heights, merges, axis=1, largest=0)
        highest = op.ReduceMax(lowest, rows)  # (B, 1)
        least = op.ReduceMin(now, columns, keepdims=0)
        closer = op.Cast(op.ReduceMin(least, rows) <= highest, to=6)
        more = op.Cast(op.ReduceMax(closer, keepdims=0), to=9)
        sizes = op.Where(mutual, size + added, size)
        return more, now, least, sizes, op.Min(parent, partner), heights, highest, i + one

    _, _, _, parents, made_at, _, depth = op.Loop(
        op.Squeeze(merges), op.Constant(value=True), distances, closest, ones, tree, unmade_all, no_limit, zero,
        body=merge_round,
    )  # fmt: skip
    _, made = op.TopK(made_at, merges, axis=1, largest=0)
    roots = op.ScatterElements(tree, made, op.GatherElements(parents, made, axis=1), axis=1)

    @graph()
    def ascend(i: INT64, go: BOOL, root: INT64[...]):  # type: ignore[misc, type-arg]
        return op.Identity(go), op.GatherElements(root, root, axis=1)

    root = op.Loop(depth, op.Constant(value=True), roots, body=ascend)  # a round adds one level to the tree
    number = op.CumSum(op.Cast(op.Equal(root, ids), to=7), one)
    label = op.Min(op.GatherElements(number, root, axis=1), clusters) - one  # a sample with NaN has more clusters
    return op.Reshape(label, flat)  # tells shape inference what a Loop does not


function = AgglomerativeClusters


def reference(x: torch.Tensor, padding: torch.Tensor, count: int, linkage: str) -> torch.Tensor:
    """Cluster tokens, one merge after the other.

    Args:
        x: (B, N, d) the tokens, at length one.
        padding: (B or 1, N or 1) 1 for padding, which is merged with itself first and with tokens last, else 0.
        count: how many clusters are left.
        linkage: "single", "complete" or "average".

    Returns:
        (B, N) the number of each token's cluster, from 0 to count - 1.
    """
    import torch

    left, right = padding[..., None], padding[:, None]
    distance = 1 - x @ x.mT + 100 * (left + right) - 204 * left * right
    return torch.stack([_labels(sample.clone(), count, linkage) for sample in distance])


def _labels(distance: torch.Tensor, count: int, linkage: str) -> torch.Tensor:
    """(N, N) -> (N,): the closest pair is merged until `count` clusters are left."""
    import torch

    tokens = len(distance)
    distance.fill_diagonal_(torch.inf)
    root, size = torch.arange(tokens), torch.ones(tokens)
    for _ in range(tokens - count):
        low, high = sorted(divmod(int(distance.argmin()), tokens))  # a product may not be symmetric to the last bit
        share = size[high] / (size[low] + size[high])
        pair = distance[[low, high]]
        merged = {
            "single": pair.amin(dim=0),
            "complete": pair.amax(dim=0),
            "average": pair[0] + share * (pair[1] - pair[0]),
        }[linkage]
        distance[low] = distance[:, low] = merged.nan_to_num(nan=torch.inf)
        distance[low, low] = torch.inf
        distance[high] = distance[:, high] = torch.inf
        root[root == high] = low
        size[low] += size[high]
    return (root == torch.arange(tokens)).cumsum(dim=0)[root] - 1


def cases() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Named inputs of the reference."""
    import torch

    def tokens(batch: int, count: int, width: int) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(count)
        return torch.nn.functional.normalize(torch.randn(batch, count, width, generator=seeded), dim=-1)

    none = torch.zeros(1, 1)
    for linkage in ("single", "complete", "average"):
        yield f"vit_s_{linkage}", (tokens(2, 196, 64), none, 137, linkage)
        yield f"odd_{linkage}", (tokens(3, 31, 3), none, 7, linkage)
        yield f"one_{linkage}", (tokens(3, 31, 8), none, 1, linkage)
        yield f"all_{linkage}", (tokens(2, 12, 4), none, 12, linkage)
        yield f"alone_{linkage}", (tokens(2, 1, 4), none, 1, linkage)
        padding = torch.zeros(2, 31)
        padding[0, 20:] = 1
        yield f"padding_{linkage}", (tokens(2, 31, 8), padding, 9, linkage)
        yield f"padding_alone_{linkage}", (tokens(2, 31, 8), padding, 26, linkage)
        yield f"duplicates_{linkage}", (tokens(2, 6, 4).repeat(1, 3, 1), none, 4, linkage)
