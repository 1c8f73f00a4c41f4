"""What must hold before anything in a bundle is believed.

Sizes are checked before files are read, names before they are opened, digests before contents are parsed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetok.errors import BundleError
from edgetok.manifest import FileDigest, Manifest, decode

MODEL, WEIGHTS, MANIFEST = "model.onnx", "model.onnx.data", "manifest.json"
ENCODER, DECODER = "encode.onnx", "decode.onnx"  # of a discrete tokenizer, in place of model.onnx
STREAMS = {"waveform": "encode_stream.onnx", "ids": "decode_stream.onnx"}  # by what goes in, one chunk at a time
MANIFEST_LIMIT = 2**24  # bytes; a real one has some thousands
ANEW = "copy the bundle anew or export it again"


def verify(path: Path, expected_id: str | None = None) -> tuple[Manifest, str]:
    """Verify every byte of a bundle.

    Args:
        path: the bundle's folder.
        expected_id: what the id must begin with.

    Returns:
        The manifest and the bundle's id.

    Raises:
        BundleError: the bundle is damaged, changed, incomplete, from another version, or not the one expected.
    """
    with reading(path):
        data = read_manifest(path)
        bundle_id = hashlib.sha256(data).hexdigest()
        if expected_id is not None and not bundle_id.startswith(expected_id):
            raise BundleError(f"{path} is the bundle {bundle_id[: max(12, len(expected_id))]}, not {expected_id}")
        try:
            manifest = decode(data)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        graph = MODEL if manifest.tokenizer is None else ENCODER
        if graph not in manifest.files:
            raise BundleError(f"{path}: the manifest lists no {graph}; export it again")
        streams = STREAMS.values() if manifest.tokenizer is not None and manifest.tokenizer.streaming else ()
        if absent := set(streams) - set(manifest.files):
            raise BundleError(f"{path}: it streams, and the manifest lists no {min(absent)}; export it again")
        _verify_names(path, manifest)
        for name, listed in manifest.files.items():
            _verify_file(path, name, listed)
        _verify_external_data(path, manifest)
    return manifest, bundle_id


def read_manifest(path: Path) -> bytes:
    """Read manifest.json if it is a plain file of sensible size."""
    size = _plain_size(path, MANIFEST)
    if size > MANIFEST_LIMIT:
        raise BundleError(f"{path}: manifest.json has {size} bytes; at most {MANIFEST_LIMIT} are read")
    return (path / MANIFEST).read_bytes()


def names(path: Path) -> Iterator[str]:
    """Everything below a folder but plain folders, by its path inside; links are named and not followed."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in names(Path(entry.path)))
        else:
            yield entry.name


def digest(file: Path) -> FileDigest:
    """Digest a file, however large."""
    sha256 = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(2**20):
            sha256.update(chunk)
    return FileDigest(sha256=sha256.hexdigest(), bytes=file.stat().st_size)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's refusals (permissions, a failing disk) into a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}: {error.filename}") from error


def _verify_names(path: Path, manifest: Manifest) -> None:
    """Refuse links, and files that the manifest does not list; hidden ones (.DS_Store) are never read."""
    for name in sorted(names(path)):
        if (path / name).is_symlink():
            raise BundleError(f"{path}: {name!r} is a link; a bundle holds plain files only: put the file in its place")
        if name not in manifest.files and name != MANIFEST and not Path(name).name.startswith("."):
            raise BundleError(f"{path}: {name!r} is not in the manifest: move it out of the bundle")


def _verify_file(path: Path, name: str, listed: FileDigest) -> None:
    size = _plain_size(path, name)
    if size != listed.bytes:
        raise BundleError(f"{path}: {name} has {size} bytes, the manifest says {listed.bytes}; {ANEW}")
    found = digest(path / name)
    if found.sha256 != listed.sha256:
        digests = f"its sha256 is {found.sha256[:12]}, the manifest says {listed.sha256[:12]}"
        raise BundleError(f"{path}: {name} was changed: {digests}; {ANEW}")


def _plain_size(path: Path, name: str) -> int:
    try:
        status = (path / name).lstat()
    except FileNotFoundError:
        raise BundleError(f"{path}: {name} is missing; {ANEW}") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: {name} is not a plain file; {ANEW}")
    return status.st_size


def _verify_external_data(path: Path, manifest: Manifest) -> None:
    """Refuse weights that lie anywhere but in a listed model.onnx.data."""
    for graph in (name for name in (MODEL, ENCODER, DECODER, *STREAMS.values()) if name in manifest.files):
        for location in _external_locations(path / graph):
            if location != WEIGHTS or WEIGHTS not in manifest.files:
                accepted = "only a model.onnx.data that the manifest lists is accepted"
                raise BundleError(f"{path}: {graph} keeps weights in {location!r}; {accepted}: export it again")


def _external_locations(model: Path) -> set[str]:
    # A tensor kept elsewhere spells the key "location": most models need no parsing.
    # 87 MB: 45 ms, where importing onnx and parsing takes 200 ms.
    with open(model, "rb") as file:
        if not model.stat().st_size or mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).find(b"location") < 0:
            return set()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(model, format="protobuf", load_external_data=False)
    except DecodeError:
        raise BundleError(f"{model} is not an ONNX model; export it again") from None
    entries = (entry for tensor in _tensors(proto) for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def _tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto inside a message: initializers, attributes, sparse tensors, subgraphs, functions."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from [item] if field.message_type.name == "TensorProto" else _tensors(item)
