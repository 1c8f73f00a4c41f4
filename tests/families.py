"""Small transformers of every family, with seeded weights: real architectures, built by transformers from a config."""

from __future__ import annotations

import functools

import torch
import transformers as tf

COMMON = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96}
VISION = COMMON | {"image_size": 64}
TEXT = COMMON | {"vocab_size": 200}


class MeanPooled(torch.nn.Module):
    """The mean over all patch tokens, as many classifiers take it."""

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixel_values=pixel_values).last_hidden_state[:, 1:].mean(dim=1)


class Projected(torch.nn.Module):
    """An encoder and its projector as one source, as in LLaVA: no class token, the last block but one."""

    def __init__(self, encoder: torch.nn.Module, width: int = 48, out: int = 64):
        super().__init__()
        self.encoder = encoder
        self.projector = torch.nn.Sequential(torch.nn.Linear(width, out), torch.nn.GELU(), torch.nn.Linear(out, out))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        states = self.encoder(pixel_values=pixel_values, output_hidden_states=True).hidden_states
        return self.projector(states[-2][:, 1:])


def pixels(size: int = 64, batch: int = 2) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))}


def words(length: int = 32, batch: int = 2) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 200, (batch, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def wave(samples: int = 8000, batch: int = 2, mask: bool = False) -> dict[str, torch.Tensor]:
    values = torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))
    ones = torch.ones(batch, samples, dtype=torch.int64)
    return {"input_values": values} | ({"attention_mask": ones} if mask else {})


def _vit(**kw):
    return tf.ViTModel(tf.ViTConfig(**({"patch_size": 8} | VISION | kw)), add_pooling_layer=False)


def modernbert(**kw):
    config = tf.ModernBertConfig(
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        reference_compile=False, **TEXT, **kw,
    )  # fmt: skip
    return tf.ModernBertModel(config)


def _wav2vec2(of=tf.Wav2Vec2Model, **kw):
    config = tf.Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96, vocab_size=32,
        conv_dim=(32, 32, 32, 32), conv_stride=(5, 4, 4, 4), conv_kernel=(10, 8, 8, 4), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, apply_spec_augment=False, layerdrop=0.0, **kw,
    )  # fmt: skip
    return of(config)


FAMILIES = {
    "vit": lambda: (_vit(), pixels()),
    "vit-mean": lambda: (MeanPooled(_vit()), pixels()),
    "deit": lambda: (tf.DeiTModel(tf.DeiTConfig(patch_size=8, **VISION), add_pooling_layer=False), pixels()),
    "dinov2": lambda: (tf.Dinov2Model(tf.Dinov2Config(patch_size=8, mlp_ratio=2, **VISION)), pixels()),
    "dinov2-registers": lambda: (
        tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(patch_size=8, mlp_ratio=2, **VISION)), pixels(),
    ),
    "clip-vision": lambda: (tf.CLIPVisionModel(tf.CLIPVisionConfig(patch_size=8, **VISION)), pixels()),
    "whisper": lambda: (
        tf.WhisperModel(tf.WhisperConfig(
            d_model=48, encoder_layers=4, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
            encoder_ffn_dim=96, decoder_ffn_dim=96, max_source_positions=50, num_mel_bins=16, vocab_size=100,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )).get_encoder(),
        {"input_features": torch.randn(2, 16, 100, generator=torch.Generator().manual_seed(1))},
    ),
    "wav2vec2": lambda: (_wav2vec2(), wave()),
    "wav2vec2-masked": lambda: (_wav2vec2(feat_extract_norm="layer", do_stable_layer_norm=True), wave(mask=True)),
    "bert": lambda: (tf.BertModel(tf.BertConfig(max_position_embeddings=64, **TEXT)), words()),
    "modernbert": lambda: (modernbert(), words()),
    "modernbert-local": lambda: (modernbert(local_attention=34), words()),
    "modernbert-unmasked": lambda: (modernbert(local_attention=12), {"input_ids": words()["input_ids"]}),
    "dinov3": lambda: (
        tf.DINOv3ViTModel(tf.DINOv3ViTConfig(patch_size=8, num_register_tokens=4, layerscale_value=1.0, **VISION)),
        pixels(),
    ),
}  # fmt: skip

PROJECTED = {"llava": lambda: (Projected(FAMILIES["clip-vision"]()[0]), pixels())}  # tokens for a language model

REFUSED = {
    "clip-text": lambda: (
        tf.CLIPTextModel(tf.CLIPTextConfig(max_position_embeddings=64, eos_token_id=199, bos_token_id=1, **TEXT)),
        words(),
    ),
    "swin": lambda: (
        tf.SwinModel(tf.SwinConfig(
            image_size=64, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4,
        )),
        pixels(),
    ),
    "beit": lambda: (
        tf.BeitModel(tf.BeitConfig(patch_size=8, use_relative_position_bias=True, **VISION), add_pooling_layer=False),
        pixels(),
    ),
    "llama": lambda: (
        tf.LlamaModel(tf.LlamaConfig(
            max_position_embeddings=64, num_key_value_heads=3, use_cache=False, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, **TEXT,
        )),
        words(),
    ),
    "wav2vec2-ctc": lambda: (
        _wav2vec2(tf.Wav2Vec2ForCTC, pad_token_id=0, feat_extract_norm="layer", do_stable_layer_norm=True),
        wave(mask=True),
    ),
}  # fmt: skip


NO_GRID = (
    "whisper",
    "wav2vec2",
    "wav2vec2-masked",
    "bert",
    "modernbert",
    "modernbert-local",
    "modernbert-unmasked",
)  # sound and text: their tokens form no square


def feeds(name: str, batch: int, seed: int = 2) -> dict[str, torch.Tensor]:
    """Other inputs for a family; where there is a mask, the samples are padded to different lengths."""
    draw = torch.Generator().manual_seed(seed)
    _, example = (FAMILIES | PROJECTED | REFUSED)[name]()
    drawn = {}
    for key, value in example.items():
        shape = (batch, *value.shape[1:])
        if key == "attention_mask":
            length = value.shape[1]
            ends = torch.tensor([length * 3 // 4, length, length // 2])[torch.arange(batch) % 3]
            drawn[key] = (torch.arange(length) < ends[:, None]).long()
        elif value.is_floating_point():
            drawn[key] = torch.randn(shape, generator=draw)
        else:
            drawn[key] = torch.randint(3, 200, shape, generator=draw)
    return drawn


def build(name: str, seed: int = 0) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A family's module, its weights spread out so that every part matters, and example inputs."""
    torch.manual_seed(seed)
    module, example = (FAMILIES | PROJECTED | REFUSED)[name]()
    return spread(module), example


def spread(module: torch.nn.Module) -> torch.nn.Module:
    """A module in evaluation, its weights spread out so that every part matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:  # transformers starts at 0.02: attention would be flat
                parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval()


def small_vit() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For `families:small_vit` on the command line."""
    return build("vit")


def wide_vit() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A ViT whose layers have whole blocks of 32."""
    torch.manual_seed(0)
    return spread(_vit(hidden_size=64, num_attention_heads=4, intermediate_size=128)), pixels()


def small_llava() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """For `families:small_llava` on the command line."""
    return build("llava")


@functools.cache
def captured(name: str, batch: int | None = None) -> tuple[bytes, torch.nn.Module]:
    """A family's graph as an ONNX file's bytes, and its module; captured once per run of the tests."""
    import onnx_ir as ir

    from edgetok.exporters.sources.pytorch import capture_module
    from edgetok.model import Origin

    module, example = build(name)
    example = example if batch is None else feeds(name, batch)
    model = capture_module(module, example, Origin("callable", name), batch=batch).model
    return ir.to_proto(model).SerializeToString(), module
