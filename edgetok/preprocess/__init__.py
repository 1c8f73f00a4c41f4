"""How files become what a model eats.

One file per kind; the manifest holds one `Preprocess` for each input that can be made from a file. Inputs without one
take arrays.

    image      a picture, resized and cut                    image.py
    text       token ids or the mask of a text               text.py
    waveform   samples of a recording, or their mask         waveform.py
    log-mel    Whisper's log-mel spectrogram of a recording  log_mel.py
"""

from typing import Annotated

from pydantic import Field

from edgetok.preprocess.image import ImagePreprocess
from edgetok.preprocess.log_mel import LogMelPreprocess
from edgetok.preprocess.text import TextPreprocess
from edgetok.preprocess.waveform import WaveformPreprocess

Preprocess = Annotated[
    ImagePreprocess | TextPreprocess | WaveformPreprocess | LogMelPreprocess, Field(discriminator="kind")
]

__all__ = ["ImagePreprocess", "LogMelPreprocess", "Preprocess", "TextPreprocess", "WaveformPreprocess"]
