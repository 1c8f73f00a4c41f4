"""TensorRT-RTX, for desktop cards, through Polygraphy; engines are built anywhere. Never run on a card."""

from edgetok.runtimes.tensorrt import TensorRt


class TensorRtRtx(TensorRt):
    """A lowered graph as an engine, built for this card at the first use and kept in the cache."""

    name = "tensorrt-rtx"
    package = "tensorrt_rtx"
    builder = "tensorrt-rtx"
    provider = "TensorRT-RTX, CUDA graphs"
