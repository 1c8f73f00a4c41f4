"""The filter bank against transformers' own, on speech and on silence."""

from __future__ import annotations

import pytest
import torch
from transformers import SeamlessM4TFeatureExtractor

from edgetok.modules.filter_bank import FilterBank
from tests import codecs


@pytest.mark.parametrize("samples", [400, 559, 560, 16000])
@pytest.mark.parametrize("loud", [1.0, 1e-3, 0.0])
def test_as_transformers(samples: int, loud: float) -> None:
    theirs = SeamlessM4TFeatureExtractor()
    x = codecs.speech(16000, samples, 2)[:, 0] * loud
    wanted = torch.stack([torch.from_numpy(theirs._extract_fbank_features(row.numpy())) for row in x])
    got = FilterBank(torch.from_numpy(theirs.mel_filters))(x * 2**15)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted.float(), rtol=0, atol=2e-3)
