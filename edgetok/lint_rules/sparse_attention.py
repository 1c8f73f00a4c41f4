"""Sparse attention over so few tokens that dense attention is faster, or without the operator that skips blocks.

Measured with onnxruntime 1.32 on an x86 processor with AVX-512, one thread, six heads of 64, choosing included: at 128
tokens block-topk of a quarter of the blocks runs at 0.79 times the speed of dense attention, at 192 tokens at 1.11, at
256 at 1.50. At three quarters it is 0.82 at 192 tokens and 1.06 at 256. `edgetok profile` measures it where it runs.
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

FEWEST = 192  # tokens from which it pays at a quarter of the blocks
SINGLE = 1 / 6  # of the keys, below which it pays for each query to read its own


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    for node in graph.nodes():
        if node.op_type not in ("BlockSparseAttention", "TokenSparseAttention") or node.domain != "edgetok":
            continue
        tokens, queries = static_dim(node.inputs[1], 2), static_dim(node.inputs[0], 2)
        if tokens is not None and tokens < FEWEST:
            yield warning(
                node,
                f"sparse attention over {tokens} tokens: dense attention is faster below about {FEWEST}",
                "leave these blocks dense with layers=, or export without --attention; edgetok profile measures it",
            )
        elif node.attributes["block_q"].as_int() == 1 and queries != 1:
            yield from _single_queries(node, target)
        elif not target.ort_cpu:
            yield info(
                node,
                f"{target.runtime.name} runs sparse attention by standard operators, which gather the listed blocks",
                "keep the density below about a half: beyond it dense attention is faster there",
            )


def _single_queries(node: ir.Node, target: Target) -> Iterator[Finding]:
    """Each query of a prompt has a list of its own."""
    tokens, most = static_dim(node.inputs[1], 2), static_dim(node.inputs[3], 3)
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
    Example("rtx-4090", _example(256), "info", "gather the listed blocks"),
    Example("x86-cpu", _example(512, block_q=1, pages=5), None),
    Example("x86-cpu", _example(512, block_q=1, pages=8), "warning", "128 of 512 keys: dense attention"),
    Example("rtx-4090", _example(512, block_q=1, pages=5), "warning", "the listed keys of each query anew"),
    Example("x86-cpu", _example_of_tokens(512, 1), "warning", "dense attention was five times as fast"),
    Example("x86-cpu", _example_of_tokens(512, 64), None),
    Example("x86-cpu", _example_of_tokens(1, 1), None),
)
