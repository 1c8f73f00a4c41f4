"""Models at the lengths that sparse attention is for, against the module whose attention is masked: choice and result.

Two blocks of one or two heads with random weights, so that the maps of all pairs fit; the real models are in
test_sparse_models.py. The weights are spread out: with those that transformers draws, attention is nearly flat, and
what a block of queries chooses turns on the last bits.
"""

import pytest
import torch
import transformers as tf
from torch.nn import functional
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from edgetok import attention, plugins
from edgetok.exporters.sources.pytorch import capture_module
from edgetok.model import Origin
from edgetok.transform import transform
from tests.comparison import run, session
from tests.families import spread
from tests.test_attention import masked

pytestmark = pytest.mark.more

VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 32}
TEXT = VISION | {"num_attention_heads": 2, "vocab_size": 200}


def pixels(size: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(1, 3, size, size)}


def words(length: int) -> dict[str, torch.Tensor]:
    """Two texts, one with padding."""
    mask = (torch.arange(length) < torch.tensor([[length], [length - 100]])).long()
    return {"input_ids": torch.randint(3, 200, (2, length)), "attention_mask": mask}


MODELS = {  # name: (module and inputs, prefix)
    "vit-518": (lambda: (tf.ViTModel(tf.ViTConfig(image_size=518, patch_size=14, **VISION)), pixels(518)), 1),
    "vit-1024": (lambda: (tf.ViTModel(tf.ViTConfig(image_size=1024, patch_size=16, **VISION)), pixels(1024)), 1),
    "dinov2-518": (lambda: (tf.Dinov2Model(tf.Dinov2Config(image_size=518, **VISION)), pixels(518)), 1),
    "dinov2-1022": (lambda: (tf.Dinov2Model(tf.Dinov2Config(image_size=1022, **VISION)), pixels(1022)), 1),
    "bert-512": (lambda: (tf.BertModel(tf.BertConfig(**TEXT)), words(512)), 1),
    "whisper-1500": (
        lambda: (
            WhisperEncoder(
                tf.WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32)
            ),
            {"input_features": torch.randn(1, 80, 3000)},
        ),
        0,
    ),
    "llama-2048": (
        lambda: (tf.LlamaModel(tf.LlamaConfig(num_key_value_heads=1, use_cache=False, **TEXT)), words(2048)), 0
    ),
}  # fmt: skip


CASES = [(name, "block-topk:density=0.25") for name in MODELS]
CASES += [
    ("vit-1024", "window:size=512"), ("dinov2-1022", "block-topk:density=0.2,means=true,tiles=8"),
    ("whisper-1500", "hisa"), ("llama-2048", "block-topk:density=0.1,means=true"),
    ("llama-2048", "streaming:size=512"), ("llama-2048", "tokenselect"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_long_model_equals_the_masked_module(name, text, monkeypatch, library):
    torch.manual_seed(0)
    (module, feeds), prefix = MODELS[name][0](), MODELS[name][1]
    spread(module).double()
    double = {key: value.double() if value.is_floating_point() else value for key, value in feeds.items()}
    attend = masked(text, prefix, name.startswith("llama"), feeds.get("input_ids"))
    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(functional, "scaled_dot_product_attention", attend)
        wanted = module(**double).last_hidden_state
    model = capture_module(module.float(), feeds, Origin("callable", name), batch=None).model
    transform(model, [], dtype="fp32", emit="full", attention=attention.parse_all(text))
    plugins.add_functions(model)
    real = feeds.get("attention_mask", torch.ones(wanted.shape[:2])).bool()
    for native in (False, True):
        got = run(session(model, native), feeds)["last_hidden_state"]
        torch.testing.assert_close(got[real].double(), wanted[real], rtol=1e-4, atol=1e-4)
