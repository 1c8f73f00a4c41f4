"""Video files: there and back, and what is no video."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from skimage import data

from edgetok.errors import InputError, MissingPackage
from edgetok.preprocess.video import frames_of, write_frames


@pytest.fixture(scope="module")
def panned() -> np.ndarray:
    """(20, 120, 136, 3) a camera that moves over a photograph."""
    photograph = data.astronaut()
    return np.stack([photograph[8 * i : 8 * i + 120, 100:236] for i in range(20)])


@pytest.mark.parametrize(("suffix", "most"), [(".mkv", 0.0), (".mp4", 5.0)])
def test_there_and_back(panned: np.ndarray, suffix: str, most: float, tmp_path: Path) -> None:
    write_frames(panned, tmp_path / f"video{suffix}", 25)
    read = np.stack([np.asarray(frame) for frame in frames_of(str(tmp_path / f"video{suffix}"))])
    assert read.shape == panned.shape and np.abs(read - panned.astype(float)).mean() <= most


def test_refuses(panned: np.ndarray, tmp_path: Path) -> None:
    """What is no video, what holds none, a suffix that is none, and a playlist, which would open other files."""
    write_frames(panned, tmp_path / "video.mp4", 25)
    soundfile.write(tmp_path / "sound.mkv", np.zeros(100), 8000, format="OGG")
    (tmp_path / "half.mp4").write_bytes((tmp_path / "video.mp4").read_bytes()[:4000])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile video.mp4\n")
    for name, message in {
        "sound.mkv": "holds no video stream",
        "half.mp4": "cannot be read as a video: Invalid data",
        "empty.mp4": "cannot be read as a video: Invalid data",
        "list.mp4": "cannot be read as a video: Invalid argument",
        "none.mp4": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            list(frames_of(str(tmp_path / name)))
    with pytest.raises(InputError, match=r"video\.gif: a video is written to \.mp4 or \.mkv"):
        write_frames(panned, tmp_path / "video.gif", 25)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackage, match=r"videos needs 'edgetok\[video\]'"):
        list(frames_of("video.mp4"))
