"""The verbs, in Python: what puts all the pieces together."""

from edgetok.api.tuning import Tuned, sweep, tune
from edgetok.api.verbs import Model, compare, export, load, profile, resolve_device, side, tokens_per_block

__all__ = [
    "Model",
    "Tuned",
    "compare",
    "export",
    "load",
    "profile",
    "resolve_device",
    "side",
    "sweep",
    "tokens_per_block",
    "tune",
]
