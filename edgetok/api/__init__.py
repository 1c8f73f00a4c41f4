"""The verbs, in Python: what puts all the pieces together."""

from edgetok.api.building import Build, build
from edgetok.api.comparing import compare
from edgetok.api.exporting import export
from edgetok.api.loading import Model, load, resolve_device
from edgetok.api.measuring import profile, side, tokens_per_block
from edgetok.api.tokenizing import detokenize, tokenize
from edgetok.api.tuning import Tuned, sweep, tune

__all__ = [
    "Build",
    "Model",
    "Tuned",
    "build",
    "compare",
    "detokenize",
    "export",
    "load",
    "profile",
    "resolve_device",
    "side",
    "sweep",
    "tokenize",
    "tokens_per_block",
    "tune",
]
