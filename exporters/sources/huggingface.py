"""A local Hugging Face folder: config.json and safetensors. Pickled weights and remote code are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetok.errors import MissingPackage, SourceError
from edgetok.files import sha256_of
from edgetok.model import Captured, Origin
from edgetok.text import library
from edgetok.tokenizer.family import family_of

if TYPE_CHECKING:
    import torch

    from edgetok.exporters.sources import CaptureOptions

TEXT_LENGTH = 128  # tokens of a text, unless --length says otherwise
SECONDS = 10  # of a waveform, at the 16 kHz that every such model takes


def capture_huggingface(folder: Path, options: CaptureOptions) -> Captured:
    """Load the folder's model with transformers, in fp32, and export it.

    Raises:
        InputError: a vocabulary that cannot be read.
        SourceError: no config.json, pickled weights only, remote code, or an architecture that transformers lacks.
    """
    config = _read_config(folder)
    weights = _weights(folder)
    try:
        import transformers
    except ImportError:
        raise MissingPackage("edgetok[export]", "exporting a Hugging Face folder") from None
    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.exporters.sources.tokenizer import capture_tokenizer
    from edgetok.preprocess.huggingface import from_huggingface

    files = library.files(folder)
    if files:
        library.load(next(iter(files.values())))  # a vocabulary that cannot be read is told before minutes of export
    model = _load(folder, config, transformers)
    origin = Origin(
        kind="huggingface",
        name=folder.resolve().name,
        sha256=sha256_of(*weights),
        licence=config.get("license"),
    )
    if family := family_of(model):
        return capture_tokenizer(model, family, origin, options, folder)
    example = _example(model, options)
    length = next((array.shape[1] for array in example.values() if array.dim() == 2), None)  # of a text or waveform
    preprocess = from_huggingface(folder, config, size=options.size, length=length)
    captured = capture_module(model, example, origin, batch=options.batch, preprocess=preprocess)
    captured.files = files
    return captured


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise SourceError(f"{folder.name!r} is no Hugging Face folder: it holds no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"config.json of {folder.name!r} is not valid JSON: {error}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise SourceError(f"config.json of {folder.name!r} names no model_type")
    if "auto_map" in config:
        raise SourceError(
            f"{folder.name!r} asks to run code of its own (auto_map); "
            "import it yourself and give edgetok package.module:callable"
        )
    return config


def _weights(folder: Path) -> list[Path]:
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        return weights
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        raise SourceError(
            f"{folder.name!r} holds pickled weights ({pickled[0]}), which can run code when read; "
            "save the model with save_pretrained(..., safe_serialization=True)"
        )
    raise SourceError(f"{folder.name!r} holds no .safetensors file")


def _load(folder: Path, config: dict[str, Any], transformers: Any) -> torch.nn.Module:
    names = config.get("architectures") or []
    architecture = getattr(transformers, names[0], None) if names else transformers.AutoModel
    if architecture is None:
        raise SourceError(f"transformers {transformers.__version__} has no architecture {names[0]!r}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model = architecture.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="float32", attn_implementation="sdpa"
        )
    except ValueError as error:
        if "sdpa" not in str(error) and "scaled_dot_product_attention" not in str(error):
            raise SourceError(f"transformers cannot load {folder.name!r}: {error}") from None
        model = architecture.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="float32")
    except Exception as error:  # damaged safetensors, shapes that do not fit ...
        raise SourceError(f"transformers cannot load {folder.name!r}: {error}") from None
    if hasattr(model, "text_model") and hasattr(model, "vision_model"):
        raise SourceError(
            f"{folder.name!r} holds two towers ({names[0]}); save the one you want: "
            "model.vision_model.save_pretrained(FOLDER) or model.text_model.save_pretrained(FOLDER)"
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()  # the decoder's loop belongs to the host program
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False
    module: torch.nn.Module = model
    return module


def _example(model: Any, options: CaptureOptions) -> dict[str, torch.Tensor]:
    """Seeded inputs of the model's kind; two samples where the batch stays dynamic."""
    import torch

    seeded = torch.Generator().manual_seed(0)
    batch = options.batch or 2
    config = model.config
    kind = model.main_input_name
    if kind == "pixel_values":
        size = options.size or config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {kind: torch.randn(batch, config.num_channels, height, width, generator=seeded)}
    if kind == "input_features":
        frames = 2 * config.max_source_positions
        return {kind: torch.randn(batch, config.num_mel_bins, frames, generator=seeded)}
    if kind == "input_values":
        if hasattr(config, "num_mel_bins"):  # spectrogram patches (AST)
            return {kind: torch.randn(batch, config.max_length, config.num_mel_bins, generator=seeded)}
        samples = options.length or SECONDS * 16_000
        wave = {kind: torch.randn(batch, samples, generator=seeded)}
        if getattr(config, "feat_extract_norm", "group") == "layer":  # the models trained with a mask
            wave["attention_mask"] = torch.ones(batch, samples, dtype=torch.int64)
        return wave
    if kind == "input_ids":
        length = options.length or min(TEXT_LENGTH, config.max_position_embeddings)
        ids = torch.randint(3, config.vocab_size, (batch, length), generator=seeded)
        return {kind: ids, "attention_mask": torch.ones(batch, length, dtype=torch.int64)}
    raise SourceError(
        f"{type(model).__name__} eats {kind!r}, which edgetok does not know; give package.module:callable "
        "that returns the module and its example inputs"
    )
