"""Which operators a plugin library for TensorRT knows: all of the domain, since a node carries its own kernel."""

from __future__ import annotations

from edgetok import plugins


def operators() -> list[str]:
    """The op_types of edgetok's domain."""
    return sorted(plugins.load(name).function.name for name in plugins.names())
