"""How near outputs come to the original's.

Of numbers the distance counts. Ids have none: one is the original's or it is not. A captured graph that computes in
fp32 must give the original's ids, but for near-ties, two codes as near as rounding can tell. Where the original is a
PyTorch tokenizer of a known family, each id that differs is held to that in fp64 (`edgetok.tokenizer.near_ties`). Of
other sources nobody knows how the ids came about, so few may differ, and how many do is said. A graph that was reduced,
quantised or typed gives other ids by right: their share stands in the manifest, and the user may demand one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgetok.errors import ParityError
from edgetok.manifest import Fidelity

SAME_IDS = 0.99  # the least share of ids that are the original's, where near-ties cannot be told
EXACT = 1e-3  # the most that an unreduced fp32 graph may differ, as a share of the output's largest value


def compare_outputs(
    got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], mask: np.ndarray | None = None
) -> tuple[Fidelity, ...]:
    """Compare each output that both have, over all samples; ids are compared by `check_exact`.

    Args:
        got: outputs by name.
        wanted: the original's.
        mask: (B, N) 0 for padding, whose tokens do not count.
    """
    numbers = [name for name in got if name in wanted and got[name].dtype.kind not in "iu"]
    return tuple(_compare(name, got[name], wanted[name], mask) for name in numbers)


def _compare(name: str, got: np.ndarray, wanted: np.ndarray, mask: np.ndarray | None) -> Fidelity:
    if got.shape != wanted.shape:
        raise ParityError(f"output {name!r} has shape {got.shape}, the original's has {wanted.shape}")
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    if mask is not None and a.ndim == 3 and a.shape[:2] == mask.shape:
        a, b = a * mask[..., None], b * mask[..., None]
    noise, signal = float(np.square(a - b).sum()), float(np.square(b).sum())
    sqnr = float("inf") if noise == 0 else 10 * np.log10(max(signal, 1e-300) / noise)
    top1 = float((a.argmax(-1) == b.argmax(-1)).mean()) if "logits" in name and a.ndim == 2 else None
    return Fidelity(
        output=name, cosine=_pooled_cosine(a, b), sqnr_db=sqnr, max_abs=float(np.abs(a - b).max(initial=0)), top1=top1
    )


def _pooled_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest cosine of any sample, of the outputs pooled over tokens (B, N, C), or as they are."""
    if a.ndim == 3:
        a, b = a.mean(axis=1), b.mean(axis=1)
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(norms, 1e-300)
    return float(np.where(norms == 0, (a == b).all(axis=1), cosine).min())


def same_ids(got: np.ndarray, wanted: np.ndarray) -> float:
    """The share of ids that are the same; 0 where there is another number of them."""
    return float((got == wanted).mean()) if got.shape == wanted.shape else 0.0


def check_exact(
    got: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    check_near_ties: Callable[[np.ndarray], None] | None = None,
) -> tuple[str, ...]:
    """Make sure that the captured graph computes what the original does.

    Args:
        got: outputs by name.
        wanted: the original's.
        check_near_ties: as `Captured.check_near_ties`, for these inputs; None where near-ties cannot be told.

    Returns:
        What has to be said of ids that are not the original's.

    Raises:
        ParityError: it does not; a fault of the exporter or of edgetok, never of the user's options.
    """
    told: list[str] = []
    for name, reference in wanted.items():
        if reference.dtype.kind in "iu":
            told += check_ids(name, got[name], reference, check_near_ties)
            continue
        error = float(np.abs(got[name].astype(np.float64) - reference).max(initial=0))
        bound = EXACT * max(float(np.abs(reference).max(initial=0)), 1e-6)
        if not error <= bound:  # a NaN must not pass
            raise ParityError(
                f"the captured graph does not compute what the original does: output {name!r} is off by {error:.3g}, "
                f"at most {bound:.3g} is accepted; please report this model"
            )
    return tuple(told)


def check_ids(
    name: str, got: np.ndarray, wanted: np.ndarray, check_near_ties: Callable[[np.ndarray], None] | None
) -> list[str]:
    """Make sure that ids are the original's, but for near-ties.

    Returns:
        What has to be said where some are not: a sentence, or none.

    Raises:
        ParityError: an id is no near-tie; or, where that cannot be told, more than a few differ.
    """
    if np.array_equal(got, wanted):
        return []
    wrong = "the captured graph does not compute what the original does"
    if got.shape != wanted.shape:
        raise ParityError(f"{wrong}: {name!r} has shape {got.shape}, not {wanted.shape}; please report this model")
    differ = f"{int((got != wanted).sum())} of {got.size} {name!r} are not the original's"
    if check_near_ties is None:
        if same_ids(got, wanted) < SAME_IDS:
            raise ParityError(f"{wrong}: {differ}, at most {1 - SAME_IDS:.0%} are accepted; please report this model")
        return [f"{differ}; whether these are near-ties cannot be told of such a source"]
    try:
        check_near_ties(got)
    except ParityError as error:
        raise ParityError(f"{wrong}: {differ}, and {error}; please report this model") from error
    return [f"{differ}: near-ties, each as near as fp32 can tell"]


def check_fidelity(fidelity: tuple[Fidelity, ...], least: float) -> None:
    """Hold the outputs to the cosine that the user asks for.

    Raises:
        ParityError: an output falls short.
    """
    for item in fidelity:
        if not item.cosine >= least:
            raise ParityError(
                f"output {item.output!r} has cosine {item.cosine:.4f} with the original's, "
                f"at least {least:g} is asked for; reduce fewer tokens, or accept it with --min-cosine"
            )


def check_same_ids(share: float, least: float) -> None:
    """Hold a tokenizer's ids to the share that the user asks for.

    Raises:
        ParityError: fewer are the original's.
    """
    if share < least:
        raise ParityError(
            f"{share:.2%} of the samples' ids are the original's, at least {least:.2%} are asked for; change less of "
            "the model, or accept it with --min-same-ids"
        )
