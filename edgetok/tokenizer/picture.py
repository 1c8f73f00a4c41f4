"""Pictures: (1, 3, H, W) fp32, normalised as the model has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from edgetok.preprocess.image import ImagePreprocess, open_picture
from edgetok.tokenizer.signal import Signal, Whole

if TYPE_CHECKING:
    import numpy as np


class Picture(Signal):
    """Pictures, of the graph's size or of any.

    Attributes:
        preprocess: how pixels become numbers; where the size is fixed, also how a picture gets it.
        free: whether the graph takes any height and width. A picture then keeps its own.
        multiple: pixels that height and width are filled up to a multiple of, by repeating the last row and column;
            `join` crops them again. Of free sizes only.
    """

    kind: Literal["picture"] = "picture"
    unit: ClassVar[str] = "pixel"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
    preprocess: ImagePreprocess
    free: bool = False
    multiple: PositiveInt = 1

    def read(self, file: str) -> Whole:
        """Read a picture, upright; where the size is fixed it is resized as the model's own processor does."""
        picture = open_picture(file)
        if self.free:
            return Whole(self.preprocess.normalised(picture)[None])
        height, width = self.preprocess.size
        same = (picture.height, picture.width) == (height, width)
        note = "" if same else f"{picture.width}x{picture.height} pixels were brought to {width}x{height}"
        return Whole(self.preprocess.normalised(self.preprocess.cut(picture, file))[None], note)

    def write(self, array: np.ndarray, file: Path) -> None:
        self.preprocess.picture(array[0]).save(file)

    def cut(self, array: np.ndarray) -> list[np.ndarray]:
        import numpy as np

        below, right = (-size % self.multiple if self.free else 0 for size in array.shape[2:])
        return [np.pad(array, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")]

    def join(self, pieces: list[np.ndarray], extent: tuple[int, ...]) -> np.ndarray:
        (picture,) = pieces
        return picture[..., : extent[0], : extent[1]]

    def units(self, extent: tuple[int, ...]) -> float:
        return extent[0] * extent[1]

    def example(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.preprocess.resized(*shape[2:]).example(shape[0], 0, Path())
