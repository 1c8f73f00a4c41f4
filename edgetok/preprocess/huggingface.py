"""The preprocessing that a Hugging Face folder asks for, read from its JSON files without transformers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgetok.errors import SourceError
from edgetok.preprocess.image import ImagePreprocess
from edgetok.preprocess.log_mel import LogMelPreprocess
from edgetok.preprocess.text import TextPreprocess
from edgetok.preprocess.waveform import WaveformPreprocess
from edgetok.text import library

if TYPE_CHECKING:
    from edgetok.preprocess import Preprocess

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _image(fit: str, resample: str, mean: tuple[float, ...], std: tuple[float, ...], box: int = 224) -> ImagePreprocess:
    return ImagePreprocess.model_validate(
        {"size": (224, 224), "box": (box, box), "fit": fit, "resample": resample, "mean": mean, "std": std}
    )


# What the published checkpoints of each family were trained with, for folders that have no preprocessor_config.json.
_IMAGES = {
    "vit": _image("squash", "bilinear", _HALF, _HALF),
    "deit": _image("squash", "bicubic", _IMAGENET_MEAN, _IMAGENET_STD, box=256),
    "dinov2": _image("cover", "bicubic", _IMAGENET_MEAN, _IMAGENET_STD, box=256),
    "dinov2_with_registers": _image("cover", "bicubic", _IMAGENET_MEAN, _IMAGENET_STD, box=256),
    "clip": _image("cover", "bicubic", _CLIP_MEAN, _CLIP_STD),
    "clip_vision_model": _image("cover", "bicubic", _CLIP_MEAN, _CLIP_STD),
    "siglip": _image("squash", "bicubic", _HALF, _HALF),
    "siglip_vision_model": _image("squash", "bicubic", _HALF, _HALF),
}
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers 0..5
# Processors for which a bare number as size means the shortest edge; for the others it means a square.
_SHORTEST_EDGE = ("CLIP", "Bit", "ConvNext", "MobileViT", "Levit", "LeViT")

MAX_JSON_BYTES = 16 << 20


def from_huggingface(
    folder: Path, config: dict[str, Any], *, size: int | tuple[int, int] | None = None, length: int | None = None
) -> dict[str, "Preprocess"]:
    """Find out how files become the inputs of the model in a folder.

    Args:
        folder: a local Hugging Face folder.
        config: the content of its config.json.
        size: height and width to capture an image model at, instead of its own.
        length: tokens of a text model, or samples of a waveform model, to capture at.

    Returns:
        A preprocess for each input that can be made from a file. An input that is absent takes arrays: the folder has
        no vocabulary, or says something of its pictures that `ImagePreprocess` cannot.
    """
    with _said_of(folder):
        return _by_family(folder, config, _stored(folder), size, length)


def stored_picture(folder: Path, default: ImagePreprocess) -> ImagePreprocess:
    """What a folder's preprocessor_config.json says of pictures, over a default.

    The default stands where the file asks for something else than to resize, cut and normalise.

    Raises:
        SourceError: it is malformed.
    """
    with _said_of(folder):
        return _stored_picture(_stored(folder), default) or default


def stored_rate(folder: Path, default: int) -> int:
    """Samples a second, as a folder's preprocessor_config.json says it; the default where it does not.

    Raises:
        SourceError: it is no positive number.
    """
    rate = _stored(folder).get("sampling_rate", default)
    if not isinstance(rate, int) or isinstance(rate, bool) or not 0 < rate <= 1_000_000:
        raise SourceError(f"preprocessor_config.json of {folder.name}/: sampling_rate {rate!r} is none, as 24000 is")
    return rate


def _stored(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    return read_json(file) if file.is_file() else {}


@contextmanager
def _said_of(folder: Path) -> Iterator[None]:
    """What is wrong in a folder's files, as an error of the source."""
    try:
        yield
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise SourceError(
            f"the configuration of the inputs in {folder.name}/ is malformed: "
            f"{where}: {wrong['msg']}, not {wrong['input']!r}"
        ) from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"the configuration of the inputs in {folder.name}/ is malformed: {error!r}") from error


def _by_family(
    folder: Path, config: dict[str, Any], stored: dict[str, Any], size: int | tuple[int, int] | None, length: int | None
) -> dict[str, "Preprocess"]:
    family = config.get("model_type", "")
    if family == "whisper":
        return {"input_features": _log_mel(config, stored)}
    if "feature_size" in stored or family in ("wav2vec2", "hubert", "wavlm", "unispeech", "data2vec-audio"):
        return _waveform(stored, length)
    found: dict[str, Preprocess] = {}
    picture = _picture(config, stored, size)
    if picture is not None:
        found["pixel_values"] = picture
    if files := library.files(folder):
        found.update(_text(folder, next(iter(files)), config, length))
    return found


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a source."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise SourceError(f"{file.name} is larger than {MAX_JSON_BYTES >> 20} MiB, which no configuration is")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(
            f"there is no {file.name} in {file.parent.name}/: give a folder saved by save_pretrained()"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{file.name} holds a {type(content).__name__}, not an object")
    return content


def _picture(
    config: dict[str, Any], stored: dict[str, Any], size: int | tuple[int, int] | None
) -> ImagePreprocess | None:
    default = _IMAGES.get(config.get("model_type", ""))
    if default is not None:
        own = config.get("vision_config", config).get("image_size", default.size)
        default = default.resized(*_height_width(own))
    picture = _stored_picture(stored, default) if "image_mean" in stored or "size" in stored else default
    return picture if picture is None or size is None else picture.resized(*_height_width(size))


def _stored_picture(stored: dict[str, Any], default: ImagePreprocess | None) -> ImagePreprocess | None:
    """What preprocessor_config.json says; None where it asks for something else than resize, cut and normalise."""
    if not stored.get("do_resize", True) or stored.get("do_pad"):
        return None
    size = stored.get("size", default.box if default else None)
    if isinstance(size, dict) and "shortest_edge" in size and "longest_edge" not in size:
        fit, box = "cover", _height_width(size["shortest_edge"])
    elif isinstance(size, dict) and "height" in size:
        fit, box = "squash", _height_width(size)
    elif isinstance(size, int):  # written before transformers 4.26
        name = stored.get("image_processor_type", stored.get("feature_extractor_type", ""))
        fit, box = "cover" if name.startswith(_SHORTEST_EDGE) else "squash", (size, size)
    elif default and isinstance(size, tuple):
        fit, box = default.fit, size
    else:
        return None
    crops = stored.get("do_center_crop", "crop_size" in stored) and stored.get("crop_size") is not None
    rescales, normalises = stored.get("do_rescale", True), stored.get("do_normalize", True)
    return ImagePreprocess.model_validate(
        {
            "size": _height_width(stored["crop_size"]) if crops else box,
            "box": box,
            "fit": fit,
            "resample": _FILTERS[stored["resample"]]
            if "resample" in stored
            else default.resample
            if default
            else "bilinear",
            "scale": stored.get("rescale_factor", default.scale if default else 1 / 255) if rescales else 1.0,
            "mean": stored.get("image_mean", default.mean if default else _HALF) if normalises else (0.0, 0.0, 0.0),
            "std": stored.get("image_std", default.std if default else _HALF) if normalises else (1.0, 1.0, 1.0),
            "channels": default.channels if default else "RGB",
        }
    )


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return size["height"], size["width"]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _log_mel(config: dict[str, Any], stored: dict[str, Any]) -> LogMelPreprocess:
    hop = stored.get("hop_length", 160)
    # The encoder halves the frames and has exactly max_source_positions of them.
    return LogMelPreprocess(
        rate=stored.get("sampling_rate", 16000),
        length=2 * config.get("max_source_positions", 1500) * hop,
        mels=config.get("num_mel_bins", 80),
        window=stored.get("n_fft", 400),
        hop=hop,
    )


def _waveform(stored: dict[str, Any], length: int | None) -> dict[str, "Preprocess"]:
    rate = stored.get("sampling_rate", 16000)
    values = WaveformPreprocess(rate=rate, length=length or 5 * rate, normalise=stored.get("do_normalize", True))
    return {"input_values": values, "attention_mask": values.model_copy(update={"yields": "attention_mask"})}


def _text(folder: Path, tokenizer: str, config: dict[str, Any], length: int | None) -> dict[str, "Preprocess"]:
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    text_config = config.get("text_config", config)
    pad_token = settings.get("pad_token") or "[PAD]"
    longest = text_config.get("max_position_embeddings", 128)
    ids = TextPreprocess(
        tokenizer=tokenizer,
        length=min(length or 128, longest),
        pad_id=text_config.get("pad_token_id") or 0,
        pad_token=pad_token["content"] if isinstance(pad_token, dict) else pad_token,
        pad_side=settings.get("padding_side", "right"),
        yields="input_ids",
    )
    others = ("attention_mask", "token_type_ids")
    return {"input_ids": ids, **{name: ids.model_copy(update={"yields": name}) for name in others}}
