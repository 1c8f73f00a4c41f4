"""scripts: byte-pair encoding within runs of one script, in place of the pieces that the vocabulary's pattern makes.

BPE Stays on SCRIPT: Structured Encoding for Robust Multilingual Pretokenization, https://arxiv.org/abs/2505.24689,
section 3. What differs: the vocabulary is a given one of bytes, and the text stays as it is, so that it comes back; the
paper's own vocabularies, of blocks and indices, are read by `edgetok/text/libraries/script_bpe.py`.
"""

from __future__ import annotations

from edgetok.text.scripts import runs
from edgetok.text.segmenter import Segmenter
from edgetok.text.segmenters.merge_rank import segment


def pieces(text: str) -> list[bytes]:
    """The runs of one script."""
    return [run.encode() for run in runs(text)]


PAPER = "SCRIPT-BPE, https://arxiv.org/abs/2505.24689, section 3"
SEGMENTER = Segmenter("the lowest rank first, within runs of one script", PAPER, segment, pieces=pieces)
