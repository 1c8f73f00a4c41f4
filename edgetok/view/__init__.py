"""The transformer in a graph: its blocks, its tokens, and what must shrink with them.

The only place that knows how graphs are spelt.
"""

from edgetok.view.view import TransformerView

__all__ = ["TransformerView"]
