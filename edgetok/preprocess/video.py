"""Frames of a video file, read and written by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.errors import InputError, MissingPackage

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CODECS = {".mp4": ("libx264", "yuv444p"), ".mkv": ("ffv1", "bgr0")}  # the second loses nothing
# Containers only: FFmpeg's playlists (HLS, DASH, concat) would open whatever else they name.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf,gif,apng,webp"
MOST_PIXELS = 2**26  # of a frame, as decoded: 8192 x 8192


def frames_of(file: str) -> Iterator[Image.Image]:
    """The frames of a file's first video stream, in the order in which they are shown, one at a time.

    Raises:
        InputError: it is no video, damaged, or its frames are too large.
        MissingPackage: PyAV is not installed.
    """
    av, seen = _av(), 0
    try:
        with av.open(file, options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise InputError(f"{file} holds no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > MOST_PIXELS:
                raise InputError(f"{file} has frames of {stream.width}x{stream.height}: {MOST_PIXELS} pixels at most")
            for frame in container.decode(stream):
                if frame.width * frame.height > MOST_PIXELS:  # a stream may change its size on the way
                    raise InputError(f"{file} has frames of {frame.width}x{frame.height}: {MOST_PIXELS} pixels at most")
                seen += 1
                yield frame.to_image()
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist") from error
    except av.error.FFmpegError as error:
        raise InputError(
            f"{file} cannot be read as a video: {error.strerror}; give a file that FFmpeg reads, such as MP4"
        ) from error
    if not seen:
        raise InputError(f"{file} holds no frames")


def write_frames(frames: np.ndarray, file: Path, rate: float) -> None:
    """Write frames to a video file.

    Args:
        frames: (T, H, W, 3) uint8.
        file: ending in .mp4, as H.264 with all colours kept apart, or in .mkv, as FFV1, which loses nothing.
        rate: frames a second.

    Raises:
        InputError: another suffix.
        MissingPackage: PyAV is not installed.
    """
    if file.suffix.lower() not in CODECS:
        raise InputError(f"{file.name}: a video is written to {' or '.join(CODECS)}")
    av, (codec, pixels) = _av(), CODECS[file.suffix.lower()]
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingPackage("edgetok[video]", "reading and writing videos") from None
    return av
