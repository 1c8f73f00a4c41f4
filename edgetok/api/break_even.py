"""From how many tokens on sparse attention is faster than dense attention on this machine."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from statistics import median

import numpy as np
import onnx_ir as ir

from edgetok import attention, plugins
from edgetok.attention import AttentionSpec
from edgetok.graph import IR_VERSION, OPSET, Emitter
from edgetok.manifest import Manifest
from edgetok.report import SparseLayer
from edgetok.runtimes.ort import session
from edgetok.timing import sample
from edgetok.view.sparse import AttentionSite, attend_to

LENGTHS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)  # that are tried
ROUNDS = 7
STEP = 1 / 16  # densities are measured in steps


def sparse_layers(manifest: Manifest) -> tuple[SparseLayer, ...]:
    """What the blocks of a bundle attend to, each with its measured break-even length."""
    specs = attention.parse_all(manifest.recipe.attention or "")
    found: dict[tuple[AttentionSpec, int, int, float], int | None] = {}
    layers = []
    for each in manifest.sparse:
        density = min(1.0, ceil(each.density / STEP) * STEP)
        case = _timed(next(spec for spec in specs if spec.names(each.block)), density), each.heads, each.width, density
        if case not in found:
            found[case] = break_even(*case)
        layers.append(
            SparseLayer(
                block=each.block, technique=each.technique, tokens=each.tokens, density=each.density, mass=each.mass,
                break_even=found[case],
            )
        )  # fmt: skip
    return tuple(layers)


def _timed(spec: AttentionSpec, density: float) -> AttentionSpec:
    """What is timed for a block: the same for blocks whose density is rounded to the same one."""
    of_density = attention.load(spec.name).of_density
    if of_density is None:
        return attention.parse("block-topk")
    return AttentionSpec(spec.name, of_density(spec.config, density, LENGTHS[-1]), attention.Shared())


def break_even(spec: AttentionSpec, heads: int, width: int, density: float) -> int | None:
    """The first length at which a technique of that density is faster than dense attention, choosing included.

    One sample, fp32, one thread, in turns; the median over the rounds decides. None where dense attention is faster at
    all lengths up to 2048 tokens.
    """
    for tokens in LENGTHS:
        sides = [_runner(spec, heads, width, tokens, share) for share in (None, density)]
        ratios = []
        for turn in range(ROUNDS + 1):
            ((dense,), (sparse,)) = (sample(side, 1) for side in sides)
            if turn:  # the first one warms up
                ratios.append(dense / sparse)
        if median(ratios) > 1:
            return tokens
    return None


def _runner(spec: AttentionSpec, heads: int, width: int, tokens: int, density: float | None) -> Callable[[], object]:
    """Runs attention on seeded input; dense without a density."""
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, heads, tokens, width])
    q, k, v = (ir.Value(name=name, type=kind, shape=shape) for name in "qkv")
    graph = ir.Graph([q, k, v], [], nodes=[], opset_imports={"": OPSET}, name="attend")
    op, chosen = Emitter(graph), attention.load(spec.name)
    causal = chosen.serves == "causal models"
    if density is None:
        y = op.Attention(q, k, v, is_causal=int(causal))
    else:
        assert chosen.of_density is not None
        config = chosen.of_density(spec.config, density, tokens)
        measured = np.random.default_rng(0).random((1, heads, width), np.float32)
        site = AttentionSite(
            op, q, k, v, None, width**-0.5, heads, heads, tokens, width, 0, causal, measured=measured
        )  # fmt: skip
        _, y = attend_to(site, chosen.lists(site, config), config.block)
    y.name, y.type, y.shape = "y", kind, shape
    graph.outputs.append(y)
    model = ir.Model(graph, ir_version=IR_VERSION)
    plugins.add_functions(model)
    made = session(ir.to_proto(model).SerializeToString(), threads=1)
    drawn = np.random.default_rng(0).standard_normal((3, 1, heads, tokens, width)).astype(np.float32)
    feeds = dict(zip("qkv", drawn, strict=True))
    return lambda: made.run(None, feeds)
