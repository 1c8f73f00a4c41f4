"""Make a transformer smaller and faster for an edge device, as one portable bundle that checks itself.

import edgetok
bundle = edgetok.export("zoo:dinov2-style-s14", out="small", reduce=["tome:r=16"])
outputs = edgetok.load("small").run({"input_image": image})
report = edgetok.profile("small", against="zoo:dinov2-style-s14")
"""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "build", "compare", "detokenize", "export", "load", "profile", "sweep", "tokenize", "tune"]

# exporters/, plugins/, runtimes/ and devices/ lie beside this folder in a checkout and inside it in a wheel.
_checkout = Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Import the verbs when they are first used, so that `import edgetok` stays fast."""
    if name in __all__:
        from edgetok import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgetok' has no attribute {name!r}")
