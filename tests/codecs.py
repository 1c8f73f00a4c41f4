"""Small audio codecs as transformers builds them from a config, with seeded weights."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import numpy as np
import soundfile
import soxr
import torch
import transformers as tf

from tests.conftest import packaged
from tests.families import spread

RATIOS = [4, 2]  # a hop of 8 samples, so that a test's clip has many tokens
SHAPE = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "upsampling_ratios": RATIOS}


def frozen(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """A model in evaluation with drawn codebooks: transformers leaves them at zero where they are buffers."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            buffer.normal_(generator=generator)
    return model.eval().requires_grad_(False)


def fitted(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """The model with codebooks drawn near what its encoder leaves for them of a recording: else all ids are one.

    The encoder's biases become small: as transformers draws them they outweigh what it hears a hundred times.
    """
    for name, parameter in model.encoder.named_parameters():
        if "bias" in name:
            parameter.mul_(0.003)
    generator = torch.Generator().manual_seed(seed)
    channels = getattr(model.config, "audio_channels", 1)
    found = [module for module in model.modules() if hasattr(module, "quantize") and hasattr(module, "codebook_size")]

    def fit(codebook: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
        del codebook.quantize  # the class's again
        rows = torch.randint(len(latents), (codebook.codebook_size,), generator=generator)
        kept = codebook.embed_sum if hasattr(codebook, "embed_sum") else codebook.embed
        near = torch.randn(len(rows), latents.shape[1], generator=generator) * latents.std() / 3
        kept.copy_(latents[rows] + near)  # on them, nothing would be left for the next codebook, and codes be the same
        if hasattr(codebook, "_embed"):
            codebook._embed = None
        return codebook.quantize(latents)

    for codebook in found:
        codebook.quantize = partial(fit, codebook)
    model.encode(speech(8000, 8000, 1, channels))
    return model


def doubled(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in fp64."""
    copied = deepcopy(model).double()
    for module in copied.modules():
        if hasattr(module, "_embed"):
            module._embed = None  # Mimi keeps what it once computed in another type
    return copied


def encodec(**options: object) -> tf.EncodecModel:
    """The shape of the model for 24 kHz: causal, one channel, weight norm."""
    torch.manual_seed(0)
    rate = options.get("sampling_rate", 24000)
    bandwidths = [rate / 8 * 6 * 4 / 1000]  # kbit/s of four codebooks of 64
    config = {"codebook_dim": 16, "target_bandwidths": bandwidths} | SHAPE | options
    return fitted(frozen(tf.EncodecModel(tf.EncodecConfig(**config))))


def encodec_48k(**options: object) -> tf.EncodecModel:
    """The shape of the model for 48 kHz: stereo, group norm, chunks that overlap, each with its scale."""
    shape = {"use_causal_conv": False, "norm_type": "time_group_norm", "audio_channels": 2, "normalize": True}
    return encodec(**shape | {"sampling_rate": 1600, "chunk_length_s": 0.25, "overlap": 0.1} | options)


def dac(**options: object) -> tf.DacModel:
    """One stride of 8, three levels."""
    torch.manual_seed(0)
    config = {
        "encoder_hidden_size": 8, "downsampling_ratios": [8], "decoder_hidden_size": 32, "n_codebooks": 3,
        "codebook_size": 32, "codebook_dim": 4,
    }  # fmt: skip
    return frozen(tf.DacModel(tf.DacConfig(**config | options)))


def speech(rate: int, samples: int, batch: int = 1, channels: int = 1, start: int = 0) -> torch.Tensor:
    """(batch, channels, samples) of a real recording; each row and channel another part of it."""
    recording, recorded = soundfile.read(packaged("moonshine_voice", "assets/beckett.wav"), dtype="float32")
    recording = soxr.resample(recording, recorded, rate)
    rows = [np.roll(recording, -start - 977 * k - rate)[:samples] for k in range(batch * channels)]
    return torch.from_numpy(np.stack(rows).reshape(batch, channels, samples).astype(np.float32))


def mimi(**options: object) -> tf.MimiModel:
    """Three levels of which the first is semantic, two tokens of the transformer for one of the stream."""
    torch.manual_seed(0)
    config = SHAPE | {
        "sampling_rate": 1600, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 4,
        "upsample_groups": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 32, "sliding_window": 8, "layer_scale_initial_scale": 1.0, "initializer_range": 0.5,
    }  # fmt: skip
    return fitted(frozen(tf.MimiModel(tf.MimiConfig(**config | options))))


def xcodec(**options: object) -> tf.XcodecModel:
    """A DAC and a HuBERT with 40 samples a token."""
    torch.manual_seed(0)
    acoustic = {
        "model_type": "dac", "encoder_hidden_size": 8, "downsampling_ratios": [8, 5], "decoder_hidden_size": 32,
        "upsampling_ratios": [8, 5], "hidden_size": 16,
    }  # fmt: skip
    semantic = {
        "model_type": "hubert", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "conv_dim": [8, 8, 8], "conv_kernel": [10, 3, 3], "conv_stride": [5, 4, 2],
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip
    halves = {"acoustic_model_config": acoustic, "semantic_model_config": semantic}
    config = halves | {"sample_rate": 8000, "codebook_size": 64, "target_bandwidths": [4.8]}
    return frozen(tf.XcodecModel(tf.XcodecConfig(**config | options)))


def xcodec2(**options: object) -> tf.Xcodec2Model:
    """A Wav2Vec2-BERT and a decoder of one layer each; at 16 kHz, 320 samples a token, as its filter bank has it."""
    torch.manual_seed(0)
    semantic = {
        "model_type": "wav2vec2-bert", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 7,
    }  # fmt: skip
    config = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "encoder_hidden_size": 4, "downsampling_ratios": [8, 8, 5],
        "semantic_model_config": semantic, "quantization_dim": 56, "quantization_levels": [4, 4, 4],
    }  # fmt: skip
    return frozen(spread(tf.Xcodec2Model(tf.Xcodec2Config(**config | options))))  # at 0.02 all ids would be one
