"""Finding the transformer blocks: one Attention node each, and the residual stream around it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgetok import graph as g
from edgetok.errors import Refusal

# What may stand between attention and the residual add: one token at a time, one input that matters.
TOKENWISE = {"Transpose", "Reshape", "MatMul", "Gemm", "Mul", "Identity", "Cast", "Dropout", "Add", "Split", "Squeeze"}
NORMS = {"LayerNormalization", "RMSNormalization"}


@dataclass
class Block:
    """One attention and what surrounds it.

    Attributes:
        index: number of the block.
        attention: the Attention node.
        stream: (B, N, C) the residual stream that the block reads.
        after_attention: (B, N, C) the residual stream behind attention, where tokens are reduced
            (behind the norm where the model normalises after the residual add, as BERT does).
        reach: the largest distance of a key that a token attends to, where attention is local; None where it is not.
    """

    index: int
    attention: ir.Node
    stream: ir.Value
    after_attention: ir.Value
    reach: int | None = None

    @property
    def query(self) -> ir.Value:
        """(B, h, N, d)"""
        return _input(self.attention, 0)

    @property
    def key(self) -> ir.Value:
        """(B, h, N, d)"""
        return _input(self.attention, 1)

    @property
    def value(self) -> ir.Value:
        """(B, h, N, d)"""
        return _input(self.attention, 2)

    @property
    def mask(self) -> ir.Value | None:
        """The attention mask, broadcastable to (B, h, N, N)."""
        return self.attention.inputs[3] if len(self.attention.inputs) > 3 else None


def find_blocks(graph: ir.Graph) -> list[Block]:
    """The blocks in the graph's order.

    No blocks are attention whose queries are the same whatever the input, as of a head that pools by a query it learnt
    (SigLIP), and, where others are, attention within convolutions, whose stream is a map (B, C, H, W).

    Raises:
        Refusal: an Attention node whose residual stream cannot be followed.
    """
    nodes = [node for node in graph if node.op_type == "Attention" and node.domain == ""]
    nodes = [node for node in nodes if not g.is_data_free(_input(node, 0))]
    blocks = [_block(index, node) for index, node in enumerate(nodes)]
    of_tokens = [block for block in blocks if block.stream.shape is None or block.stream.shape.rank() != 4]
    return [replace(block, index=index) for index, block in enumerate(of_tokens or blocks)]


def _block(index: int, attention: ir.Node) -> Block:
    add, stream = _residual_add(attention)
    sources = [_stream_of(_input(attention, i), stream) for i in range(3)]
    if not all(sources):
        which = "qkv"[sources.index(False)]
        raise Refusal(
            f"its {which} does not come from the residual stream {stream.name!r} (cross-attention?)",
            node=attention.name,
            way_out="only self-attention blocks can be reduced",
        )
    after = add.outputs[0]
    uses = g.consumers(after)
    if len(uses) == 1 and uses[0][0].op_type in NORMS and not after.is_graph_output():
        after = uses[0][0].outputs[0]  # post-norm: the stream is what leaves the norm
    return Block(index, attention, stream, after)


def _residual_add(attention: ir.Node) -> tuple[ir.Node, ir.Value]:
    """The Add that joins attention's branch to the residual stream, and that stream."""
    value = attention.outputs[0]
    while True:
        uses = g.consumers(value)
        if len(uses) != 1:
            break
        node, index = uses[0]
        if node.op_type == "Add":
            other = _input(node, 1 - index)
            if not g.is_data_free(other):
                return node, other
        if node.op_type not in TOKENWISE:
            break
        value = node.outputs[0]
    at = g.consumers(value)[0][0] if g.consumers(value) else attention
    if at.op_type in ("Slice", "Pad", "Concat"):  # windows are laid back on the grid, rolled and cropped
        raise Refusal(
            f"attention {attention.name!r} works within windows of the grid: its branch goes on with {at.op_type}",
            node=at.name,
            way_out="token reduction needs attention over all tokens",
        )
    raise Refusal(
        f"no residual add behind attention {attention.name!r}: its branch ends at {at.op_type}",
        node=at.name,
        way_out="every attention of the graph must be a block: export the encoder by itself",
    )


def _stream_of(value: ir.Value, stream: ir.Value) -> bool:
    """Whether a value is computed from the stream, one step after the other."""
    seen: set[ir.Value] = set()
    stack = [value]
    while stack and len(seen) < 400:  # q, k and v lie a few dozen nodes behind the stream
        current = stack.pop()
        if current is stream:
            return True
        node = current.producer()
        if current in seen or node is None or node.op_type in ("Attention", "Conv"):
            continue
        seen.add(current)
        stack += [v for v in node.inputs if v is not None]
    return False


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
