"""A picture as a vision transformer eats it: (3, height, width) floats."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from edgetok.errors import InputError
from edgetok.preprocess.base import FilePreprocess, Medium

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Size = tuple[PositiveInt, PositiveInt]  # (height, width)


class ImagePreprocess(FilePreprocess):
    """Resize into a box, cut or pad to the size, scale, normalise.

    Attributes:
        size: height and width that the model eats.
        box: height and width that the picture is resized to before it is cut to `size`, about its centre.
        fit: `cover` keeps the proportions and fills the box (with a square box: resize the shortest edge), `contain`
            keeps them and stays inside, padded with black (resize the longest edge), `squash` gives them up.
        resample: Pillow's filter.
        scale: factor that brings 0..255 to the range that `mean` and `std` are written for.
        mean: subtracted, per channel in the order of `channels`.
        std: divided by, per channel.
        channels: order of the channels.
    """

    kind: Literal["image"] = "image"
    medium: ClassVar[Medium] = "image"
    size: Size
    box: Size
    fit: Literal["cover", "contain", "squash"]
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    scale: PositiveFloat = 1 / 255
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    channels: Literal["RGB", "BGR"] = "RGB"

    def resized(self, height: int, width: int) -> "ImagePreprocess":
        """The same, for a model captured at another size; the share of the picture that is cut away stays."""
        box = (round(self.box[0] * height / self.size[0]), round(self.box[1] * width / self.size[1]))
        return self.model_copy(update={"size": (height, width), "box": box})

    def load(self, sources: Sequence[str], folder: Path) -> "np.ndarray":
        """Read pictures of any mode that Pillow reads."""
        import numpy as np

        return np.stack([self.normalised(self.cut(open_picture(source), source)) for source in sources])

    def example(self, batch: int, seed: int, folder: Path) -> "np.ndarray":
        """Soft blobs of colour under some grain: neighbouring patches are alike, as in a photograph."""
        import numpy as np
        from PIL import Image

        rng = np.random.default_rng(seed)
        height, width = self.size
        samples = []
        for _ in range(batch):
            blobs = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
            blurred = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
            grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
            samples.append(self.normalised(Image.fromarray(np.clip(blurred + grain, 0, 255).astype(np.uint8))))
        return np.stack(samples)

    def cut(self, picture: "Image.Image", name: str) -> "Image.Image":
        """The part of the picture that the model sees, at the model's size."""
        from PIL import Image

        width, height = self._resized_to(picture.width, picture.height)
        if width * height > (Image.MAX_IMAGE_PIXELS or 2**31):
            raise InputError(
                f"{name}: a picture of {picture.width}x{picture.height} would be resized to {width}x{height} before it "
                "is cut; cut it to a less extreme shape"
            )
        picture = picture.resize((width, height), Image.Resampling[self.resample.upper()])
        # Rounded toward zero: of an odd number of columns or rows the larger half is on the right, or below.
        left, top = (int((own - wanted) / 2) for own, wanted in ((width, self.size[1]), (height, self.size[0])))
        # Outside the picture Pillow fills with zeros: black, before normalisation.
        return picture.crop((left, top, left + self.size[1], top + self.size[0]))

    def _resized_to(self, width: int, height: int) -> tuple[int, int]:
        box_height, box_width = self.box
        wide = width * box_height >= height * box_width  # wider than the box
        if self.fit == "squash":
            return box_width, box_height
        if self.fit == "cover":  # the long edge is rounded down, as everywhere since torchvision
            return (box_height * width // height, box_height) if wide else (box_width, box_width * height // width)
        if wide:
            return box_width, max(1, round(box_width * height / width))
        return max(1, round(box_height * width / height)), box_height

    def normalised(self, picture: "Image.Image") -> "np.ndarray":
        """The numbers that the model eats, (3, H, W) fp32, of a picture of its size."""
        import numpy as np

        pixels = np.asarray(picture, dtype=np.float32)  # (H, W, 3)
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        mean, std = np.array(self.mean), np.array(self.std)
        pixels = pixels * (self.scale / std).astype(np.float32) - (mean / std).astype(np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, H, W)

    def picture(self, array: "np.ndarray") -> "Image.Image":
        """What `normalised` made numbers of: (3, H, W) -> a picture, what is out of range clipped."""
        import numpy as np
        from PIL import Image

        pixels = (array.transpose(1, 2, 0) * np.array(self.std) + np.array(self.mean)) / self.scale
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def open_picture(file: str) -> "Image.Image":
    """Open a picture as 8-bit RGB, upright, what is transparent on white."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                return _to_rgb(upright, file)
        except InputError:
            raise
        except (FileNotFoundError, IsADirectoryError) as error:
            raise InputError(f"{file}: there is no such file") from error
        except UnidentifiedImageError as error:
            raise InputError(
                f"{file} is not a picture: give a file that Pillow reads, such as JPEG, PNG or WebP"
            ) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            raise InputError(f"{file} has more than {limit} million pixels: make it smaller") from error
        except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
            raise InputError(
                f"{file} cannot be read as a picture, it may be damaged: {error}; copy it anew, or save it as PNG"
            ) from error


def _to_rgb(picture: "Image.Image", file: str) -> "Image.Image":
    import numpy as np
    from PIL import Image

    if picture.mode == "F":
        raise InputError(
            f"{file} has floating-point pixels, whose range is not known: save it with 8 or 16 bits a channel"
        )
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 8 bits
        levels = np.asarray(picture)
        if levels.min() < 0 or levels.max() > 65535:
            raise InputError(f"{file} has pixels outside 0..65535: save it with 8 or 16 bits a channel")
        picture = Image.fromarray((levels.astype(np.uint16) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
