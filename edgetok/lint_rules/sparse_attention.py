"""Sparse attention over so few tokens that dense attention is faster, or without the operator that skips blocks.

Measured with onnxruntime 1.32 on an x86 processor with AVX-512, one thread, six heads of 64, choosing included: at 128
tokens block-topk of a quarter of the blocks runs at 0.79 times the speed of dense attention, at 192 tokens at 1.11, at
256 at 1.50. At three quarters it is 0.82 at 192 tokens and 1.06 at 256. `edgetok profile` measures it where it runs.
TensorRT runs the standard operators, which gather the listed blocks.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, info, static_dim, warning

FEWEST = 192  # tokens from which it pays at a quarter of the blocks


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node."""
    for node in graph.nodes():
        if node.op_type != "BlockSparseAttention" or node.domain != "edgetok":
            continue
        tokens = static_dim(node.inputs[1], 2)
        if tokens is not None and tokens < FEWEST:
            yield warning(
                node,
                f"sparse attention over {tokens} tokens: dense attention is faster below about {FEWEST}",
                "leave these blocks dense with layers=, or export without --attention; edgetok profile measures it",
            )
        elif not target.ort_cpu:
            yield info(
                node,
                f"{target.runtime.name} runs sparse attention by standard operators, which gather the listed blocks",
                "keep the density below about a half: beyond it dense attention is faster there",
            )


def _example(tokens: int) -> str:
    """A model whose attention is sparse over so many tokens."""
    shape = f"float[1,2,{tokens},16]"
    return (
        '<ir_version: 10, opset_import: ["": 23, "edgetok": 1]> '
        f"g ({shape} q, int32[1,1,1,1] i, int32[1,1,1] c, float[1,1] b) => ({shape} y) {{"
        " y = edgetok.BlockSparseAttention <block_q: int = 64, block_k: int = 64, scale: float = 0.25,"
        " causal: int = 0, window: int = -1, pinned: int = 0> (q, q, q, i, c, b) }"
    )


EXAMPLES = (
    Example("x86-cpu", _example(128), "warning", "dense attention is faster below about 192"),
    Example("x86-cpu", _example(256), None),
    Example("rtx-4090", _example(256), "info", "gather the listed blocks"),
)
