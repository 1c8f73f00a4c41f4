"""What a bundle says of its tokenizer: a part of the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from edgetok.model import TensorSpec
from edgetok.tokenizer.picture import Picture
from edgetok.tokenizer.video import Video
from edgetok.tokenizer.waveform import Waveform

if TYPE_CHECKING:
    from edgetok.tokenizer.head import Layout

Kind = Annotated[Picture | Waveform | Video, Field(discriminator="kind")]


class Streaming(BaseModel):
    """How a causal codec is run chunk by chunk, by encode_stream.onnx and decode_stream.onnx.

    Inputs of these graphs are a chunk, `position` (B,) int64 and `state` (B, S) fp32, both zeros at first; outputs are
    what is made of the chunk, `next_position` and `next_state`.

    Attributes:
        chunk: tokens of a chunk; the last one may be shorter.
        first: tokens of the first chunk, at least as many.
        hop: samples of a token.
        encode_inputs: of encode_stream.onnx.
        decode_inputs: of decode_stream.onnx.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    chunk: PositiveInt
    first: PositiveInt
    hop: PositiveInt
    encode_inputs: tuple[TensorSpec, ...]
    decode_inputs: tuple[TensorSpec, ...]

    @model_validator(mode="after")
    def _whole(self) -> Streaming:
        for given, inputs in (("waveform", self.encode_inputs), ("ids", self.decode_inputs)):
            by_name = {spec.name: spec for spec in inputs}
            if set(by_name) != {given, "position", "state"} or not isinstance(by_name["state"].shape[-1], int):
                raise ValueError(f"a stream's inputs are {given}, position and state (B, S), not {sorted(by_name)}")
        return self

    def width(self, given: str) -> int:
        """S of the graph that is given "waveform" or "ids"."""
        inputs = self.encode_inputs if given == "waveform" else self.decode_inputs
        (size,) = (spec.shape[-1] for spec in inputs if spec.name == "state")
        assert isinstance(size, int)
        return size


class Description(BaseModel):
    """A tokenizer, as its two graphs need it to be known.

    Attributes:
        family: the file of exporters/tokenizers/ that made it, or another name.
        signal: what is turned into ids.
        skips: whether an id may be -1, a level that is left out.
        sizes: how many codes each id of a token chooses from; ids are int64, (B, N), or (B, N, L) where there are L.
        keep: what may be left out at the end: "tokens", or "levels" of each token; None where nothing may.
        tokens: N of a sample's piece, whose shape is that of the bundle's samples.
        same_ids: the share of ids that equal the original's, over the samples.
        rate: bits a pixel or a second of that piece.
        decode_inputs: of decode.onnx: `ids`, and what else encode.onnx gives out. None where there is no decoder.
        decode_outputs: of decode.onnx: the signal.
        streaming: the same chunk by chunk; None where the bundle has no graphs for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    family: str
    signal: Kind
    sizes: tuple[PositiveInt, ...]
    keep: Literal["tokens", "levels"] | None = None
    skips: bool = False
    tokens: PositiveInt = 1
    same_ids: float = 1.0
    rate: float = 0.0
    decode_inputs: tuple[TensorSpec, ...] = ()
    decode_outputs: tuple[TensorSpec, ...] = ()
    streaming: Streaming | None = None

    @property
    def layout(self) -> Layout:
        """Of the ids; how wide a token's vector is does not matter any more."""
        from edgetok.tokenizer.head import Layout

        return Layout(1, self.sizes, self.skips)
