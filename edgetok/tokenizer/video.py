"""Videos: (1, 3, T, H, W) fp32, normalised as the model has them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from edgetok.errors import InputError
from edgetok.preprocess.image import ImagePreprocess
from edgetok.tokenizer.signal import Signal, Whole

if TYPE_CHECKING:
    import numpy as np

MOST_NUMBERS = 2**28  # of a whole video, 1 GiB in fp32


class Video(Signal):
    """Videos of the graph's size, cut into pieces of as many frames as it takes.

    Attributes:
        preprocess: how pixels become numbers, and how a frame gets the model's size.
        frames: T of a piece; the last one is filled up by repeating the last frame, which `join` drops again.
        rate: frames a second of the files that are written; frames are read as they come.
    """

    kind: Literal["video"] = "video"
    unit: ClassVar[str] = "pixel"
    suffixes: ClassVar[tuple[str, ...]] = (".mkv", ".mp4")
    preprocess: ImagePreprocess
    frames: PositiveInt
    rate: PositiveFloat = 25.0

    def read(self, file: str) -> Whole:
        """Read every frame, resized as the model takes it."""
        import numpy as np

        from edgetok.preprocess.video import frames_of

        height, width = self.preprocess.size
        most = MOST_NUMBERS // (3 * height * width)
        read = [
            self.preprocess.normalised(self.preprocess.cut(frame, file)) for frame in islice(frames_of(file), most + 1)
        ]
        if len(read) > most:
            raise InputError(f"{file} has more than {most} frames: cut it into pieces")
        return Whole(np.stack(read, axis=1)[None], f"frames were brought to {width}x{height}")

    def write(self, array: np.ndarray, file: Path) -> None:
        import numpy as np

        from edgetok.preprocess.video import write_frames

        frames = [np.asarray(self.preprocess.picture(array[0, :, i])) for i in range(array.shape[2])]
        write_frames(np.stack(frames), file, self.rate)

    def cut(self, array: np.ndarray) -> list[np.ndarray]:
        import numpy as np

        fill = -array.shape[2] % self.frames
        filled = np.pad(array, ((0, 0), (0, 0), (0, fill), (0, 0), (0, 0)), mode="edge")
        return np.split(filled, filled.shape[2] // self.frames, axis=2)

    def join(self, pieces: list[np.ndarray], extent: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        return np.concatenate(pieces, axis=2)[:, :, : extent[0]]

    def units(self, extent: tuple[int, ...]) -> float:
        return extent[0] * extent[1] * extent[2]

    def example(self, shape: tuple[int, ...]) -> np.ndarray:
        """Pictures that do not move much: each frame is the first, shifted by a pixel more."""
        import numpy as np

        batch, _, frames, height, width = shape
        first = self.preprocess.resized(height, width).example(batch, 0, Path())
        return np.stack([np.roll(first, i, axis=3) for i in range(frames)], axis=2)
