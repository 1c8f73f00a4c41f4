"""One-D-Piece: a TiTok whose first tokens tell the most, so that any number of them makes a picture.

One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression, https://arxiv.org/abs/2501.10064, section 3;
published code: modeling/one_d_piece.py of turingmotors/One-D-Piece (Apache-2.0).

Only the training differs from TiTok's: a tail of tokens, of random length, is dropped. The decoder simply sees a
shorter sequence; nothing is masked. Weights load as TiTok's do.
"""

from __future__ import annotations

from edgetok.modules.titok import TiTok


class OneDPiece(TiTok):
    """Pictures (B, 3, H, W) with values from 0 to 1 -> ids (B, K) int64; the first k of these, 1 <= k <= K -> pictures.

    The published models have K = 256, and otherwise TiTok's defaults, in the sizes SMALL, BASE and LARGE.
    """
