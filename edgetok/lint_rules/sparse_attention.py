"""Sparse attention over so few tokens that dense attention is faster, or without the operator that skips blocks.

Measured with onnxruntime 1.32 on an x86 processor with AVX-512, one thread, six heads of 64, a quarter of the blocks,
choosing included: how many times as fast as dense attention block-topk is.

    tokens           128   192   256   384   512  1024  2048
    blocks of 16    1.15  1.35  1.53  1.57  1.66  1.93  2.07
    blocks of 32    1.21  1.75  2.31  2.47  2.49  3.04  3.58
    blocks of 64    0.77  1.12  1.48  2.12  2.71  3.23  3.74
    blocks of 128   0.80  0.63  0.86  1.30  1.64  3.26  3.81

At three quarters blocks of 64 give 0.82 at 192 tokens and 1.06 at 256. `edgetok profile` measures it where it runs.
TensorRT runs the standard operators, which gather the listed blocks.

Lists of single queries (quest, double-sparsity) share no product, measured there too against dense causal attention of
512 to 2048 tokens: pages of 16 keys ran at 1.2 to 1.4 times its speed with an eighth of the keys, at 0.7 with a
quarter of 512; single tokens at 0.28 or less with any, nearly all of it to choose them. The standard operators hold the
listed keys of every query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetok.lint_rules import Example, Finding, Graph, Target, info, static_dim, warning

if TYPE_CHECKING:
    import onnx_ir as ir

SHORTEST = 128  # tokens from which it was measured
BLOCKS = 3  # of queries from which it pays at a quarter of them
SINGLE = 1 / 6  # of the keys, below which it pays for each query to read its own


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    for node in graph.nodes():
        if node.op_type not in ("BlockSparseAttention", "TokenSparseAttention") or node.domain != "edgetok":
            continue
        tokens, queries = _tokens(node), static_dim(node.inputs[0], 2)
        side = node.attributes["block_q"].as_int()
        fewest = max(SHORTEST, BLOCKS * (side if side > 1 else 64))  # as blocks of 64, where each query has a list
        if tokens is not None and tokens < fewest:
            yield warning(
                node,
                f"sparse attention over {tokens} tokens: dense attention is faster below about {fewest}",
                "leave these blocks dense with layers=, or export without --attention; edgetok profile measures it",
            )
        elif side == 1 and queries != 1:
            yield from _single_queries(node, target)
        elif not target.ort_cpu:
            yield info(
                node,
                f"{target.runtime.name} runs sparse attention by standard operators, which gather the listed blocks",
                "keep the density below about a half: beyond it dense attention is faster there",
            )


def _tokens(node: ir.Node) -> int | None:
    """How many there are: not the keys, in front of which means or separators may stand.

    The first queries may be cut off, which attend to all. A single query reads a cache of so many keys.
    """
    query, key = node.inputs[:2]
    if static_dim(query, 2) == 1:
        return static_dim(key, 2)
    cut = query.producer() if query is not None else None
    return static_dim(cut.inputs[0] if cut is not None and cut.op_type == "Slice" else query, 2)


def _single_queries(node: ir.Node, target: Target) -> Iterator[Finding]:
    """Each query of a prompt has a list of its own."""
    tokens, most = _tokens(node), static_dim(node.inputs[3], 3)
    if not target.ort_cpu:
        yield warning(
            node,
            f"{target.runtime.name} runs this by standard operators, which gather the listed keys of each query anew",
            "tokenselect shares a list among a chunk's queries; block-topk shares blocks",
        )
    elif node.op_type == "TokenSparseAttention":
        yield warning(
            node,
            "each query of the prompt picks single tokens: dense attention was five times as fast at 2048 tokens",
            "tokenselect shares a list among a chunk's queries; what this one wins, it wins in decoding with a cache",
        )
    elif tokens and most and most * node.attributes["block_k"].as_int() > SINGLE * tokens:
        yield warning(
            node,
            f"each query reads its own pages, {most * node.attributes['block_k'].as_int()} of {tokens} keys: dense "
            "attention is faster above about a sixth",
            "take a smaller budget=, or tokenselect, which shares a list among a chunk's queries",
        )


def _example(tokens: int, block_q: int = 64, pages: int = 1) -> str:
    """A model whose attention is sparse over so many tokens."""
    shape, rows = f"float[1,2,{tokens},16]", -(-tokens // block_q)
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g ({shape} q, int32[1,1,{rows},{pages}] i, int32[1,1,{rows}] c, float[1,1] b) => ({shape} y) {{"
        f" y = edgetok.BlockSparseAttention <block_q: int = {block_q}, block_k: int = {min(64, block_q * 16)},"
        " scale: float = 0.25, causal: int = 0, window: int = -1, pinned: int = 0> (q, q, q, i, c, b) }"
    )


def _example_with_means(tokens: int, whole: int) -> str:
    """64 means stand in front of the keys, and the first block of queries attends to all."""
    shape, rows = f"float[1,2,{tokens},16]", -(-tokens // 64) - whole
    lists = f"int32[1,1,{rows},2] i, int32[1,1,{rows}] c"
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g ({shape} q, float[1,2,{tokens + 64},16] k, {lists}, float[1,{tokens + 64}] b) => (y) {{"
        f" first = Constant <value_ints = [{64 * whole}]> ()  last = Constant <value_ints = [9999]> ()"
        "  axis = Constant <value_ints = [2]> ()  rest = Slice (q, first, last, axis)"
        " y = edgetok.BlockSparseAttention <block_q: int = 64, block_k: int = 64, scale: float = 0.25,"
        " causal: int = 0, window: int = -1, pinned: int = 0> (rest, k, k, i, c, b) }"
    )


def _example_of_tokens(queries: int, block_q: int) -> str:
    """One that picks single tokens for so many queries."""
    shape, rows = f"float[1,2,{queries},16]", -(-queries // block_q)
    lists = f"int32[1,1,{rows},9] i, int32[1,1,{rows}] c"
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g ({shape} q, float[1,2,512,16] k, {lists}, float[1,1] b) => ({shape} y) {{"
        f" y = edgetok.TokenSparseAttention <block_q: int = {block_q}, scale: float = 0.25, causal: int = 1>"
        " (q, k, k, i, c, b) }"
    )


EXAMPLES = (
    Example("x86-cpu", _example(128), "warning", "dense attention is faster below about 192"),
    Example("x86-cpu", _example(256), None),
    Example("x86-cpu", _example(160, block_q=16), None),
    Example("x86-cpu", _example(256, block_q=128), "warning", "dense attention is faster below about 384"),
    Example("x86-cpu", _example_with_means(160, 0), "warning", "sparse attention over 160 tokens"),
    Example("x86-cpu", _example_with_means(200, 1), None),
    Example("rtx-4090", _example(256), "info", "gather the listed blocks"),
    Example("x86-cpu", _example(512, block_q=1, pages=5), None),
    Example("x86-cpu", _example(512, block_q=1, pages=8), "warning", "128 of 512 keys: dense attention"),
    Example("rtx-4090", _example(512, block_q=1, pages=5), "warning", "the listed keys of each query anew"),
    Example("x86-cpu", _example_of_tokens(512, 1), "warning", "dense attention was five times as fast"),
    Example("x86-cpu", _example_of_tokens(512, 64), None),
    Example("x86-cpu", _example_of_tokens(1, 1), None),
)
