"""Bundles: the one folder that goes to the device.

    model.onnx  [model.onnx.data]  [a vocabulary]  manifest.json  samples/{inputs,original,expected}.safetensors

A bundle appears all at once or not at all: it is written into a neighbour folder `.NAME.tmp-XXXX`, verified, and
renamed. The same graph, manifest and samples give the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetok import samples as safetensors
from edgetok.errors import BundleError, OutputError, UnknownName, UsageError
from edgetok.manifest import FILES, Manifest, encode
from edgetok.serialize import write_model
from edgetok.verify import (
    ANEW,
    DECODER,
    ENCODER,
    MANIFEST,
    MODEL,
    STREAMS,
    WEIGHTS,
    digest,
    names,
    read_manifest,
    reading,
    verify,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

_UNFINISHED = re.compile(r"\..+\.tmp-[0-9a-f]{8}")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
        id: sha256 of manifest.json, and through it of everything in the folder.
    """

    path: Path
    manifest: Manifest
    id: str

    @property
    def model_path(self) -> Path:
        """The canonical graph; of a discrete tokenizer the encoder."""
        return self.path / (MODEL if self.manifest.tokenizer is None else ENCODER)

    @property
    def bytes(self) -> int:
        """Of what runs, graphs and weights; the samples are left out."""
        files = self.manifest.files.items()
        return sum(file.bytes for name, file in files if not name.startswith("samples/"))

    @property
    def decoder_path(self) -> Path:
        """The decoder of a discrete tokenizer.

        Raises:
            BundleError: the bundle has none.
        """
        if DECODER not in self.manifest.files:
            what = "is no discrete tokenizer" if self.manifest.tokenizer is None else "is a tokenizer without a decoder"
            raise BundleError(f"{self.path} {what}: there is nothing that turns ids into a signal")
        return self.path / DECODER

    def load(self, files: Sequence[str]) -> dict[str, np.ndarray]:
        """Make a batch of inputs out of files, one sample each; a tokenizer's signal is as many as it has pieces.

        Raises:
            InputError: a file that is not what the bundle takes.
        """
        from edgetok.inputs import load_inputs, load_signals

        tokenizer = self.manifest.tokenizer
        if tokenizer is None:
            return load_inputs(files, self.manifest.inputs, self.path)
        return load_signals(files, tokenizer.signal, self.manifest.inputs)

    def samples(self, kind: str) -> dict[str, np.ndarray]:
        """Read one set of sample arrays.

        Args:
            kind: "inputs", "original" (the original model's outputs) or "expected" (the bundle's own).
        """
        name = f"samples/{kind}.safetensors"
        if name not in self.manifest.files:
            kinds = [Path(file).stem for file in self.manifest.files if file.startswith("samples/")]
            raise UnknownName("sample set", kind, kinds)
        with reading(self.path):
            data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name].sha256:
            raise BundleError(f"{self.path}: {name} was changed since the bundle was opened; {ANEW}")
        try:
            return safetensors.from_bytes(data)
        except BundleError as error:
            raise BundleError(f"{self.path}: {name}: {error}") from None


def open_bundle(path: Path, expected_id: str | None = None) -> Bundle:
    """Open a bundle, verifying every byte of it.

    Args:
        path: the bundle's folder.
        expected_id: insist on this id; its first eight or more digits will do.

    Raises:
        BundleError: the bundle is damaged, changed, incomplete, from another version, or not the one expected.
    """
    if expected_id is not None and not re.fullmatch(r"[0-9a-f]{8,64}", expected_id):
        raise UsageError(f"bundle id {expected_id!r}: give 8 to 64 hexadecimal digits, lower case")
    with reading(path):
        if not path.exists():
            raise BundleError(f"{path}: there is no such folder")
        if not path.is_dir():
            raise BundleError(f"{path} is a file; a bundle is a folder with model.onnx and manifest.json")
    if _UNFINISHED.fullmatch(path.resolve().name):
        raise BundleError(f"{path} was left by an interrupted export: delete it and export again")
    return Bundle(path, *verify(path, expected_id))


def is_bundle(path: Path) -> bool:
    """Tell whether a folder presents itself as a bundle, of whatever version; nothing is verified."""
    try:
        if _UNFINISHED.fullmatch(path.resolve().name) or not any((path / name).is_file() for name in (MODEL, ENCODER)):
            return False
        body = json.loads(read_manifest(path))
    except (OSError, ValueError, RecursionError, BundleError):
        return False
    return isinstance(body, dict) and "schema_version" in body and "files" in body


def check_output(out: Path, force: bool = False) -> Path:
    """Make sure that a bundle may be written to `out`; worth asking before the long work.

    Args:
        out: the folder that is to become the bundle.
        force: allow an empty folder or a bundle there, to be replaced. Nothing else is ever deleted.

    Returns:
        The real path behind `out`, links followed.
    """
    out = Path(os.path.realpath(out))
    if not out.exists():
        return out
    if not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder that does not exist yet")
    if not force:
        raise OutputError(f"{out} exists; choose another output folder, or replace it with --force")
    found = sorted(names(out))
    other = [name for name in found if name != MANIFEST and not FILES.fullmatch(name)]
    if other:
        raise OutputError(f"{out} holds {other[0]!r}, which is no part of a bundle: --force replaces bundles only")
    if found and not is_bundle(out):
        raise OutputError(f"{out} is not a bundle, and --force replaces bundles only; choose another output folder")
    return out


def write_bundle(
    out: Path,
    model: ir.Model | bytes,
    manifest: Manifest,
    samples: Mapping[str, Mapping[str, np.ndarray]],
    force: bool = False,
    files: Mapping[str, Path] | None = None,
    decoder: ir.Model | None = None,
    streams: Sequence[ir.Model] = (),
) -> Bundle:
    """Write a bundle: whole, or not at all.

    Args:
        out: the folder that becomes the bundle.
        model: the canonical graph, or the bytes of one.
        manifest: everything but `files`, which are filled in.
        samples: arrays by kind ("inputs", "original", "expected") and name.
        force: replace an empty folder or a bundle.
        files: others that the inputs need, such as tokenizer.json, by name.
        decoder: of a discrete tokenizer.
        streams: its encoder and decoder for one chunk.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    out = check_output(out, force)
    staging = out.with_name(f".{out.name}.tmp-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        if isinstance(model, bytes):
            (staging / MODEL).write_bytes(model)
        else:
            write_model(model, staging)
        if manifest.tokenizer is not None:
            _name_parts(staging, decoder, streams)
        for name, file in (files or {}).items():
            shutil.copyfile(file, staging / name)
        (staging / "samples").mkdir()
        for kind, arrays in samples.items():
            (staging / f"samples/{kind}.safetensors").write_bytes(safetensors.to_bytes(arrays))
        manifest = manifest.model_copy(update={"files": {name: digest(staging / name) for name in names(staging)}})
        (staging / MANIFEST).write_bytes(encode(manifest))
        for name in [*names(staging), "samples", ""]:
            _sync(staging / name)
        verified = verify(staging)
        with _ctrl_c_waits():
            _put_in_place(staging, check_output(out, force), force)
    except OSError as error:
        raise OutputError(_why(error, out)) from error
    finally:  # Ctrl-C comes through here as well
        with _ctrl_c_waits():
            shutil.rmtree(staging, ignore_errors=True)
    return Bundle(out, *verified)


def _name_parts(staging: Path, decoder: ir.Model | None, streams: Sequence[ir.Model]) -> None:
    """encode.onnx in place of model.onnx, and decode.onnx and the graphs for streams beside it."""
    import onnx_ir as ir

    if (staging / WEIGHTS).exists():
        raise OutputError("an encoder of more than 2 GB: a tokenizer's graphs hold their weights themselves")
    os.rename(staging / MODEL, staging / ENCODER)
    if decoder is not None:
        (staging / DECODER).write_bytes(ir.to_proto(decoder).SerializeToString())
    for name, model in zip(STREAMS.values(), streams, strict=False):
        (staging / name).write_bytes(ir.to_proto(model).SerializeToString())


def _put_in_place(staging: Path, out: Path, force: bool) -> None:
    """Rename the finished folder to its name; what was there takes the name `staging`, and so will be deleted."""
    aside = out.with_name(f".{out.name}.old-{secrets.token_hex(4)}")
    try:
        if force and out.exists():
            os.rename(out, aside)
        os.rename(staging, out)
        _sync(out.parent)
    finally:
        if aside.exists():
            os.rename(aside, staging if out.exists() else out)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let a few quick steps finish before a KeyboardInterrupt; other threads than the main one never see any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)


def _sync(path: Path) -> None:
    """Have the disk hold what was written: a file's bytes, a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(error: OSError, out: Path) -> str:
    # numpy's tofile says "N requested and M written" without an errno when the disk is full
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "written" in str(error)):
        return f"{out} cannot be written: the disk is full; nothing was left behind"
    return f"{out} cannot be written: {error.strerror or error}; nothing was left behind"
