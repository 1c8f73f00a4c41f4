"""Export techniques and weight formats on three kinds of transformer into one folder. Needs torch; the bundles do not.

python tests/portable/export_bundles.py OUT
"""

import shutil
import sys
from pathlib import Path

import edgetok

SOURCES = {  # name: source, tokens that go from each block, options
    "vit": ("models:vit_small", 13, {"min_cosine": -1}),  # its weights are random
    "dinov2": ("zoo:dinov2-style-s14", 16, {}),
    "minilm": ("zoo:minilm", 4, {"length": 64}),
}
TECHNIQUES = ("tome", "pitome", "random")
FORMATS = ("nvfp4", "hlq:bits=2", "int8")


def main(out: Path) -> None:
    """Write OUT/vit-tome, OUT/vit-pitome and so on."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, (source, r, options) in SOURCES.items():
        for technique in TECHNIQUES:
            print(f"export {source} --reduce {technique}:r={r}", flush=True)
            edgetok.export(source, out=out / f"{name}-{technique}", reduce=[f"{technique}:r={r}"], **options)
    for spec in FORMATS:
        print(f"export zoo:dinov2-style-s14 --quantize {spec}", flush=True)
        edgetok.export(
            "zoo:dinov2-style-s14", out=out / f"dinov2-{spec.partition(':')[0]}", quantize=[spec], min_cosine=0
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
