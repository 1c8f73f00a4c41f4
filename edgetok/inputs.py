"""From what a user has (files, texts, arrays) to the inputs of a graph."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgetok.errors import InputError, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from edgetok.model import TensorSpec
    from edgetok.tokenizer.signal import Signal

SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
    "text": (".txt",),
    "arrays": (".npz",),
}

# What zipfile and numpy raise for files that are no .npz.
UNREADABLE = (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, MemoryError)


def load_inputs(files: Sequence[str], specs: "Sequence[TensorSpec]", folder: Path) -> "dict[str, np.ndarray]":
    """Make a batch out of files, one sample each.

    Args:
        files: pictures, recordings, texts (files, or the texts themselves), or .npz files with arrays under the
            inputs' names.
        specs: the graph's inputs.
        folder: the bundle's folder, where a tokenizer's file lies.

    Returns:
        Every input, checked against its spec.
    """
    by_kind: dict[str, list[str]] = {}
    for file in files:
        by_kind.setdefault(_kind(file, specs), []).append(file)
    inputs = _read_arrays(by_kind.get("arrays", []), specs)
    for spec in specs:
        if spec.name not in inputs:
            if spec.preprocess is None or spec.preprocess.medium not in by_kind:
                raise InputError(f"nothing was given for input {spec.name!r}: {_accepted([spec])}")
            inputs[spec.name] = spec.preprocess.load(by_kind[spec.preprocess.medium], folder).astype(dtype(spec.dtype))
    check_inputs(inputs, specs)
    return inputs


def load_signals(files: Sequence[str], signal: "Signal", specs: "Sequence[TensorSpec]") -> "dict[str, np.ndarray]":
    """Make a batch out of the signals of a discrete tokenizer: the pieces of each file, one after the other.

    Args:
        files: pictures, recordings or videos, or .npz files with arrays under the inputs' names.
        signal: how the tokenizer reads them.
        specs: the graph's inputs.

    Raises:
        InputError: they cannot be read, or their sizes differ where the graph takes any.
    """
    import numpy as np

    if all(file.lower().endswith(SUFFIXES["arrays"]) for file in files):
        return load_inputs(files, specs, Path())
    pieces = {file: signal.cut(signal.read(file).array) for file in files}
    shapes = {file: cut[0].shape[1:] for file, cut in pieces.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{file} {_shape(shape)}" for file, shape in shapes.items())
        raise InputError(f"signals of unlike sizes make no batch: {sizes}; give them one at a time")
    inputs = {specs[0].name: np.concatenate([piece for cut in pieces.values() for piece in cut])}
    check_inputs(inputs, specs)
    return inputs


def example_inputs(
    specs: "Sequence[TensorSpec]", folder: Path, *, batch: int = 1, seed: int = 0
) -> "dict[str, np.ndarray]":
    """Make a valid batch from a seed: synthetic pictures, sounds and texts where the inputs have a preprocess.

    Inputs that take arrays only are guessed by their type and name: noise for floats, ones with some padding for masks,
    zeros for token types, small numbers for other integers.
    """
    inputs = {}
    for spec in specs:
        if spec.shape and isinstance(spec.shape[0], int):
            batch = spec.shape[0]
        if spec.preprocess is not None:
            inputs[spec.name] = spec.preprocess.example(batch, seed, folder).astype(dtype(spec.dtype))
        else:
            inputs[spec.name] = _guess(spec, batch, seed)
    check_inputs(inputs, specs)
    return inputs


def check_inputs(inputs: "Mapping[str, np.ndarray]", specs: "Sequence[TensorSpec]") -> None:
    """Compare arrays with what the graph takes: names, types, shapes, and that every number is finite."""
    import numpy as np

    sizes: dict[str, int] = {}  # of the dynamic axes, as the first array that has them says
    for name in inputs:
        _spec_named(name, specs)
    for spec in specs:
        if spec.name not in inputs:
            raise InputError(f"nothing was given for input {spec.name!r}: {_accepted([spec])}")
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"input {spec.name!r} is a {type(array).__name__}: give a numpy array of {spec.dtype}")
        _check_type_and_shape(spec, array.dtype, array.shape, sizes)
        # ml_dtypes' bfloat16 is of kind "V", like structured arrays, but isfinite takes it
        finite = np.isfinite(array) if array.dtype.kind in "fcV" else np.True_
        if not finite.all():
            finite = np.atleast_1d(finite)
            samples = np.nonzero(~finite.reshape(len(finite), -1).all(axis=1))[0].tolist()
            raise InputError(
                f"input {spec.name!r} has NaN or infinite values in sample {_some(samples)}: mend or leave out these"
            )


def dtype(name: str) -> "np.dtype[Any]":
    """The numpy type of a spec's name; bfloat16 comes from ml_dtypes, as in onnx."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    found: np.dtype[Any] = np.dtype(name)
    return found


def _kind(file: str, specs: "Sequence[TensorSpec]") -> str:
    """What a file is: by its name, or by what the model takes."""
    eats = sorted({spec.preprocess.medium for spec in specs if spec.preprocess})
    suffix = os.path.splitext(file)[1].lower()
    kind = next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)
    if not os.path.isfile(file):
        names_a_file = not any(c.isspace() for c in file) and (kind or os.sep in file)
        if "text" in eats and not names_a_file and not os.path.isdir(file):
            return "text"
        raise InputError(
            f"{file} is a folder, not a file" if os.path.isdir(file) else f"{file} is missing: there is no such file"
        )
    if kind == "arrays" or kind in eats:
        return kind
    if kind is None and len(eats) == 1:
        return eats[0]
    raise InputError(f"{file} is not what the model takes: {_accepted(specs)}")


def _accepted(specs: "Sequence[TensorSpec]") -> str:
    """What a model's inputs can be made from, for messages."""
    media = sorted({spec.preprocess.medium for spec in specs if spec.preprocess})
    ways = [f"{medium} ({', '.join(SUFFIXES[medium])})" for medium in media]
    arrays = ", ".join(f"{spec.name}: {spec.dtype} {_shape(spec.shape)}" for spec in specs)
    return f"give {' or '.join([*ways, f'an .npz with {arrays}'])}"


def _read_arrays(files: Sequence[str], specs: "Sequence[TensorSpec]") -> "dict[str, np.ndarray]":
    import numpy as np

    parts: dict[str, list[np.ndarray]] = {}
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.namelist():
                    spec = _spec_named(entry.removesuffix(".npy"), specs)
                    with archive.open(entry) as member:
                        _check_header(member, spec)
                    with archive.open(entry) as member:
                        parts.setdefault(spec.name, []).append(np.lib.format.read_array(member, allow_pickle=False))
        except UNREADABLE as error:
            raise InputError(f"{file} cannot be read as .npz, write it with numpy.savez: {error}") from error
    return {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in parts.items()}


def samples_in(file: str) -> int:
    """How many samples a file holds: as many as the first array of an .npz has rows, one otherwise."""
    if Path(file).suffix != ".npz":
        return 1
    try:
        with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as member:
            shape, _ = _header(member, file)
    except (*UNREADABLE, IndexError):  # which is told where it is loaded
        return 1
    return max((1, *shape[:1]))


def _header(member: IO[bytes], name: str) -> "tuple[tuple[int, ...], np.dtype[Any]]":
    from numpy.lib import format as npy

    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has npy version {version}, for arrays of records")
    shape, _, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(member)
    return shape, kind


def _check_header(member: IO[bytes], spec: "TensorSpec") -> None:
    """Refuse an array that does not fit before anything is allocated for it."""
    shape, kind = _header(member, spec.name)
    _check_type_and_shape(
        spec, kind, shape, {}, first=1
    )  # several files make one batch: its size is checked when it is whole


def _check_type_and_shape(
    spec: "TensorSpec", kind: "np.dtype[Any]", shape: tuple[int, ...], sizes: dict[str, int], first: int = 0
) -> None:
    """Compare with a spec, from the axis `first` on; `sizes` holds the dynamic axes met so far, and takes new ones."""
    if kind != dtype(spec.dtype):
        raise InputError(
            f"input {spec.name!r} is {kind}, the model takes {spec.dtype}: convert it with .astype({spec.dtype!r})"
        )
    noted = dict(sizes)
    fits = len(shape) == len(spec.shape) and all(
        size > 0 and size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
        for size, want in zip(shape[first:], spec.shape[first:], strict=True)
    )
    if not fits:
        known = [
            f", with {axis} = {size} as in the inputs before it" for axis, size in noted.items() if axis in spec.shape
        ]
        raise InputError(
            f"input {spec.name!r} has shape {_shape(shape)}, the model takes {_shape(spec.shape)}{''.join(known)}"
        )


def _spec_named(name: str, specs: "Sequence[TensorSpec]") -> "TensorSpec":
    for spec in specs:
        if spec.name == name:
            return spec
    raise UnknownName("input", name, [spec.name for spec in specs])


def _guess(spec: "TensorSpec", batch: int, seed: int) -> "np.ndarray":
    import numpy as np

    rest = [size for size in spec.shape[1:] if isinstance(size, int)]
    free = [axis for axis in spec.shape[1:] if isinstance(axis, str)]
    if free:
        raise InputError(
            f"input {spec.name!r} has the free axis {free[0]!r}: fix it with --length, or give the inputs as .npz"
        )
    rng = np.random.default_rng(seed)
    shape = (batch, *rest) if spec.shape else ()
    wanted = dtype(spec.dtype)
    if wanted.kind in "fV":
        return rng.standard_normal(shape, np.float32).astype(wanted)
    if wanted.kind == "b" or "mask" in spec.name:
        lengths = np.array([shape[-1] if sample % 2 else max(1, 2 * shape[-1] // 3) for sample in range(batch)])
        kept = np.arange(shape[-1]) < lengths.reshape(batch, *[1] * len(rest))
        return np.broadcast_to(kept, shape).astype(wanted)
    return rng.integers(0, 1 if "type" in spec.name else 100, shape).astype(wanted)


def _shape(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" and others" if len(numbers) > 5 else "")
