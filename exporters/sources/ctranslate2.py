"""The encoder of a Whisper in CTranslate2's format, captured without torch (see edgetok/whisper_graph.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetok.ctranslate2_file import Ctranslate2File
from edgetok.exporters.sources._built import captured
from edgetok.preprocess import LogMelPreprocess
from edgetok.whisper_graph import Sizes, build_whisper

if TYPE_CHECKING:
    from edgetok.model import Captured, Origin


def capture(path: Path, origin: Origin, *, batch: int | None = None) -> Captured:
    """Capture the encoder; its decoder's loop belongs to the host program.

    Args:
        path: model.bin.
        origin: what the manifest shall say of the source.
        batch: recordings per run; free where not given.

    Raises:
        SourceError: the file is damaged.
        CaptureError: it holds another kind of model.
    """
    file = Ctranslate2File(path)
    sizes, hop = Sizes.of(file), LogMelPreprocess().hop
    log_mel = LogMelPreprocess(mels=sizes.mels, length=2 * sizes.length * hop)  # the encoder halves the frames
    return captured(lambda: build_whisper(file, batch), origin, {"input_features": log_mel}, batch=batch)
