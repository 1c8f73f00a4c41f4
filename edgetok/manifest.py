"""manifest.json: what a bundle says about itself.

The file has exactly one spelling (`canonical_json`), so that equal bundles have equal bytes and its sha256 can be the
bundle's id. It also carries a checksum of itself: a changed byte is found without knowing the id.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgetok import __version__
from edgetok.errors import BundleError
from edgetok.model import Origin, TensorSpec
from edgetok.tokenizer.description import Description

SCHEMA_VERSION: Final = 1
FILES = re.compile(
    r"model\.onnx|model\.onnx\.data|(en|de)code(_stream)?\.onnx|tokenizer(_config)?\.json"
    r"|[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(model|tiktoken)|samples/[a-z]+\.safetensors"
)  # leaves no way out of the folder


def _file_name(name: str) -> str:
    if not FILES.fullmatch(name):
        graphs = "model.onnx, model.onnx.data, encode.onnx, decode.onnx, encode_stream.onnx, decode_stream.onnx"
        known = f"{graphs}, tokenizer.json, tokenizer_config.json, NAME.model, NAME.tiktoken, samples/NAME.safetensors"
        raise ValueError(f"{name!r} is no file of a bundle: {known} are")
    return name


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _finite_or_none(value: Any) -> Any:
    return None if value == float("inf") else value


Dtype = Literal["fp32", "fp16", "bf16"]
Emit = Literal["full", "reduced"]
Figure = Annotated[float, AfterValidator(_six_digits)]  # more digits are noise of the machine
FileName = Annotated[str, AfterValidator(_file_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recipe(_Part):
    """What the user asked for, as canonical specs: "tome:r=16", "nvfp4", and "window:size=256" for `attention`.

    `stream` is in milliseconds.
    """

    reduce: tuple[str, ...] = ()
    quantize: tuple[str, ...] = ()
    activations: str | None = None
    attention: str | None = None
    dtype: Dtype = "fp32"
    emit: Emit = "full"
    batch: int | None = None
    length: int | None = None
    size: int | tuple[int, int] | None = None
    stream: Figure | None = None
    min_cosine: Figure | None = None


class Step(_Part):
    """What a technique does in one block, or, where `block` is None, to the tokens that are given out.

    Where it is `dynamic`, counts differ from input to input, and these are the means over the samples.
    """

    block: int | None
    technique: str
    tokens_in: int
    tokens_out: int
    dynamic: bool = False


class SparseBlock(_Part):
    """What a block's attention looks at: blocks of `size` tokens, `density` of the pairs of them, or fewer.

    It has so many `heads` of so many channels (`width`).
    `mass` is the share of the dense attention that these get on the samples, where it was measured (`auto`).
    """

    block: int
    technique: str
    tokens: int
    size: int
    density: Figure
    heads: int
    width: int
    mass: Figure | None = None


class TokenMap(_Part):
    """Where tokens went, composed over all reductions; it differs from input to input, so outputs hold it.

    Of `tokens` original ones (those that the unreduced outputs hold; counted through all crops where these share their
    tokens), `kept` are left in `outputs` (None: that differs from input to input). `rows` names the output (B, tokens)
    that has the final row of each original token, -1 where it was dropped behind the encoder; `positions` the one
    (B, kept) that has the original place of each final token; `sizes` the one (B, kept, 1) that has how many tokens
    each stands for.
    """

    tokens: int
    kept: int | None
    outputs: tuple[str, ...]
    rows: str
    positions: str | None = None
    sizes: str | None = None


class Fidelity(_Part):
    """How near one output comes to the original's, over the samples; `sqnr_db` is None where the two are equal."""

    output: str
    cosine: Figure
    sqnr_db: Annotated[Figure | None, BeforeValidator(_finite_or_none)]
    max_abs: Figure
    top1: Figure | None = None


class LowBit(_Part):
    """A linear layer whose weight (N, K) has few bits; `edgetok/lowbit/weight.py` says how it is stored.

    `layer` is the node, whose codes, scales and global scale are the initializers of its name; `scales` is their type,
    one for each `block` weights of an output channel; `bits_per_weight` counts all of it. `sqnr_db` sets the weight
    against the original's, and is None where the two are equal.
    """

    layer: str
    format: str
    shape: tuple[int, int]
    bits: int
    block: int
    scales: str
    bits_per_weight: Figure
    sqnr_db: Figure | None


class BuiltOn(_Part):
    """The exporting machine, as far as the bytes of a bundle depend on it."""

    machine: str
    cpu_features: tuple[str, ...]


class FileDigest(_Part):
    """One file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Manifest(_Part):
    """What a bundle says about itself.

    `tokens` is the count before the first block; `token_map` is None where all tokens are restored at the outputs;
    `tokenizer` is there for discrete tokenizers only; `inputs` and `outputs` are those of encode.onnx then. `files` is
    filled on writing.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    source: Origin
    recipe: Recipe
    tokens: int
    schedule: tuple[Step, ...] = ()
    token_map: TokenMap | None = None
    weights: tuple[LowBit, ...] = ()
    sparse: tuple[SparseBlock, ...] = ()
    tokenizer: Description | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fidelity: tuple[Fidelity, ...] = ()
    tools: dict[str, str | None]
    built_on: BuiltOn
    files: dict[FileName, FileDigest] = {}


def canonical_json(value: Any) -> bytes:
    """Spell a JSON value in the one way that manifests use.

    Raises:
        ValueError: for what JSON cannot say: NaN, infinities, lone surrogates.
    """
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def encode(manifest: Manifest) -> bytes:
    """Give the bytes of manifest.json."""
    body = manifest.model_dump(mode="json")
    if body["tokenizer"] is None:  # bundles that are none keep their bytes and their ids
        del body["tokenizer"]
    elif body["tokenizer"]["streaming"] is None:
        del body["tokenizer"]["streaming"]
    if body["recipe"]["stream"] is None:
        del body["recipe"]["stream"]
    return canonical_json(body | {"checksum": _sha256(canonical_json(body))})


def decode(data: bytes) -> Manifest:
    """Read the bytes of manifest.json.

    Raises:
        BundleError: the bytes are no manifest, were changed since they were written, or are of another version.
    """
    try:
        body = json.loads(data)
        canonical = isinstance(body, dict) and canonical_json(body) == data
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not JSON: {error}; copy the bundle anew or export it again") from None
    if not isinstance(body, dict) or not isinstance(version := body.get("schema_version"), int):
        raise BundleError("manifest.json is no manifest of a bundle: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(_other_version(version, body))
    checksum = body.pop("checksum", None)
    if not canonical or checksum != _sha256(canonical_json(body)):
        raise BundleError("manifest.json was changed after it was written; copy the bundle anew or export it again")
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"manifest.json: {where}: {first['msg']}") from None


def _other_version(version: int, body: dict[str, Any]) -> str:
    """Say which version the bundle has, which one this edgetok reads, and what to do."""
    tools = body.get("tools")
    writer = tools.get("edgetok") if isinstance(tools, dict) else None
    by = f", written by edgetok {writer!r}" if isinstance(writer, str) else ""
    cure = "upgrade: pip install -U edgetok" if version > SCHEMA_VERSION else "export it again"
    return f"the bundle has schema version {version}{by}; edgetok {__version__} reads version {SCHEMA_VERSION}: {cure}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
