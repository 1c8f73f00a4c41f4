"""KeepTokens in Triton, as keep_tokens.ptx holds it: the tests need no Triton.

    python tests/tensorrt/keep_tokens.py        # Triton 3.9; writes keep_tokens.ptx for sm_80 and newer
"""

from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from edgetok.tensorrt.node import without_debug, without_scratch

BLOCK, THREADS, PTX_VERSION = 128, 128, 80


@triton.jit
def keep_tokens(x, order, n, kept, width, result, BLOCK: tl.constexpr):
    """x (B, n, width) fp32, order (B, kept) int64 -> result (B, kept, width); a program per row and batch item."""
    row, item = tl.program_id(0), tl.program_id(1)
    source = tl.load(order + item * kept + row)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < width
        values = tl.load(x + (item * n + source) * width + columns, mask=inside)
        tl.store(result + (item * kept + row) * width + columns, values, mask=inside)


if __name__ == "__main__":
    signature = {"x": "*fp32", "order": "*i64", "n": "i32", "kept": "i32", "width": "i32", "result": "*fp32"}
    source = ASTSource(keep_tokens, signature | {"BLOCK": "constexpr"}, constexprs={"BLOCK": BLOCK})
    options = {"ptx_version": PTX_VERSION, "num_warps": THREADS // 32}
    made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
    assert made.metadata.shared == made.metadata.global_scratch_size == made.metadata.profile_scratch_size == 0
    Path(__file__).with_suffix(".ptx").write_text(without_scratch(without_debug(made.asm["ptx"])))
