"""What is fed to a model, checked against what it takes: one place for every runtime."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from edgetok.errors import InputError
from edgetok.model import TensorSpec

if TYPE_CHECKING:
    import numpy as np


def check_feeds(feeds: "Mapping[str, np.ndarray]", inputs: Sequence[TensorSpec]) -> None:
    """Refuse feeds that do not fit.

    Raises:
        InputError: names missing or unknown, a wrong type, rank or size, unequal batches, values that are not finite.
    """
    _check_names(list(feeds), [spec.name for spec in inputs])
    sizes: dict[str, tuple[int, str]] = {}  # symbolic axis -> its size and the input that set it
    for spec in inputs:
        _check_array(feeds[spec.name], spec, sizes)
    for spec in inputs:
        _check_finite(feeds[spec.name], spec.name)


def _check_names(given: list[str], known: list[str]) -> None:
    takes = ", ".join(map(repr, known))
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            raise InputError(f"no input {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"it takes {takes}"))
    if missing := [name for name in known if name not in given]:
        raise InputError(f"no value for input {missing[0]!r}: the model takes {takes}")


def _check_array(array: "np.ndarray", spec: TensorSpec, sizes: dict[str, tuple[int, str]]) -> None:
    import numpy as np

    if not isinstance(array, np.ndarray):
        raise InputError(f"input {spec.name!r} is a {type(array).__name__}: give a numpy array of {spec.dtype}")
    if str(array.dtype) != spec.dtype:
        raise InputError(f"input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}: convert it first")
    accepted = f"the model takes {shape_text(spec.shape)}"
    if array.ndim != len(spec.shape):
        raise InputError(f"input {spec.name!r} has {array.ndim} axes, {shape_text(array.shape)}: {accepted}")
    for axis, (size, wanted) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if isinstance(wanted, int):
            if size != wanted:
                raise InputError(f"input {spec.name!r} is {shape_text(array.shape)}: {accepted}; axis {axis} differs")
            continue
        if size < 1:
            raise InputError(f"input {spec.name!r} is {shape_text(array.shape)}: axis {axis} ({wanted}) is empty")
        first, setter = sizes.setdefault(wanted, (size, spec.name))
        if size != first:
            raise InputError(f"input {spec.name!r} has {wanted} {size} but {setter!r} has {first}: they must be equal")


def _check_finite(array: "np.ndarray", name: str) -> None:
    """A NaN would spread to every output without a word."""
    import numpy as np

    if array.dtype.kind in "iub":
        return
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        count = array.size - int(finite.sum())
        raise InputError(
            f"input {name!r} is {array[index]} at {index}: {count} of its {array.size} values are not finite"
        )


def shape_text(shape: Sequence[int | str]) -> str:
    """A shape as users write it: [batch, 3, 224, 224]."""
    return f"[{', '.join(map(str, shape))}]"
