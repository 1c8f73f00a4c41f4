"""What runs on the device before anything is installed there: these files are sent as text to its Python.

Standard library of Python 3.10 only, nothing else of edgetok. A call does one thing: it reads one request from standard
input, a line of JSON, with bytes behind it where files are sent, and answers in lines of JSON, the last of which has
"done" or "error". Every request may be repeated: when a connection drops, it is opened again and asked again.

    ~/.cache/edgetok/blobs/SHA256        files that were sent, each once, whoever needs it
    ~/.cache/edgetok/jobs/ID/            one run: its bundle, inputs, outputs; removed when it was brought back
    ~/.local/share/edgetok/envs/NAME/    a virtual environment that sees the system's packages: edgetok and its needs
"""

from functools import cache
from importlib.resources import files

PARTS = ("protocol", "places", "blobs", "environment", "supervisor", "runs", "main")  # each imports those before it
LOADER = """
import sys, types
for name, text in {parts!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), vars(module))
module.main()
"""


@cache
def source() -> bytes:
    """One Python text that makes modules of all parts and answers one request."""
    parts = [(f"{__name__}.{part}", (files(__name__) / f"{part}.py").read_text(encoding="utf-8")) for part in PARTS]
    return LOADER.format(parts=parts).encode()
