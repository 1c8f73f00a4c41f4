"""Whether a bundle gives on this machine the outputs that it promises for its samples.

Another machine rounds otherwise, so outputs may be off by a little. Where a hair decides, by more: rounded activations
fall to the next level, ids to the next code, attention picks other keys and, in half precision, tokens merge with
others, of which every later token hears. What is accepted then is said below, and is nearer to the promise than to
another model's outputs. A sample whose tokens merge otherwise says nothing of the others: those are held to the bound
in every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from edgetok.errors import BundleError
from edgetok.fidelity import SAME_IDS, same_ids

if TYPE_CHECKING:
    import numpy as np

    from edgetok.bundle import Bundle
    from edgetok.lowering import Arithmetic

TOLERANCE = 1e-4  # as a share of an output's largest value; 1e-2 in half precision
LEAST_A8_DB = 20.0  # SQNR of int8 activations against fp32 ones; 55 for the map of zoo:dinov2-style-s14 in nvfp4
NEARER_DB = 20.0  # that other picks of keys may leave over the distance to the original; 52 and 54 seen
DOCTOR = "edgetok doctor says what is installed"


def check_promised(bundle: Bundle, got: Mapping[str, np.ndarray], arithmetic: Arithmetic) -> dict[str, float]:
    """Hold outputs to those that a bundle promises for its samples.

    Returns:
        For each output its largest error as a share of its largest value: of the better half, where `halved` names
        one. Of ids, the share that are other ones.

    Raises:
        BundleError: an output is off by more than is accepted.
    """
    a_tokenizer = bundle.manifest.tokenizer is not None
    return {
        name: _check_ids(bundle, name, got[name], wanted)
        if a_tokenizer and wanted.dtype.kind in "iu"
        else _check_numbers(bundle, name, got[name], wanted, arithmetic)
        for name, wanted in bundle.samples("expected").items()
    }


def halved(bundle: Bundle) -> Literal["rows", "samples"] | None:
    """Of what near-ties may move fewer than half: rows, where attention picks keys; samples, where tokens are reduced.

    In fp32 no near-tie of a reduction has been seen. In fp16 the C++ operators chose other tokens than plain ONNX
    Runtime in 5 of 32 samples of a ViT-B with drawn weights, which they moved as a whole.
    """
    if bundle.manifest.sparse:
        return "rows"
    return "samples" if bundle.manifest.schedule and bundle.manifest.recipe.dtype != "fp32" else None


def _check_ids(bundle: Bundle, name: str, got: np.ndarray, wanted: np.ndarray) -> float:
    others = 1 - same_ids(got, wanted)
    if others > 1 - SAME_IDS:
        raise BundleError(
            f"{bundle.path}: on this machine {others:.1%} of {name!r} are other ones than promised, "
            f"{1 - SAME_IDS:.0%} are accepted, as near-ties; {DOCTOR}"
        )
    return others


def _check_numbers(bundle: Bundle, name: str, got: np.ndarray, wanted: np.ndarray, arithmetic: Arithmetic) -> float:
    import numpy as np

    recipe = bundle.manifest.recipe
    error = got.astype(np.float64) - wanted
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-30)
    of, least = halved(bundle), _least_db(bundle, name, arithmetic)
    if of is None or error.ndim < 2 or least is None:
        largest = float(np.abs(error).max(initial=0)) / scale
    else:
        axes = -1 if of == "rows" else tuple(range(1, error.ndim))
        largest = float(np.quantile(np.abs(error).max(axis=axes, initial=0) / scale, 0.5, method="higher"))
    off = f"output {name!r} is off by {largest:.1e} of its largest value"

    rounds = arithmetic == "a8" or recipe.activations is not None
    bound = TOLERANCE if recipe.dtype == "fp32" else 100 * TOLERANCE
    if not rounds and not largest <= bound:  # a NaN must not pass
        raise BundleError(f"{bundle.path}: on this machine {off}, at most {bound:g} is accepted; {DOCTOR}")

    noise, signal = float(np.square(error).sum()), float(np.square(wanted, dtype=np.float64).sum())
    if least is not None and not noise <= 10 ** (-least / 10) * signal:
        why = "with rounded activations" if rounds else "with keys or tokens chosen otherwise"
        cure = "run it with a32" if arithmetic == "a8" else DOCTOR
        raise BundleError(f"{bundle.path}: {why} {off}, less than {least:.3g} dB over the noise: {cure}")
    return largest


def _least_db(bundle: Bundle, output: str, arithmetic: Arithmetic) -> float | None:
    """What an output must have over its noise, in dB; None where its largest error counts alone."""
    known = [
        each.sqnr_db for each in bundle.manifest.fidelity if each.output == output and each.sqnr_db is not None
    ]  # to the original: rounding in the graph may move an output as far again
    allowed = [LEAST_A8_DB] if arithmetic == "a8" else []
    if bundle.manifest.recipe.activations is not None or halved(bundle) == "samples":
        allowed += known
    if bundle.manifest.sparse:
        allowed += [sqnr + NEARER_DB for sqnr in known]
    return min(allowed, default=None)
