"""Print the path of a real photograph: the astronaut that scikit-image ships, found without importing it."""

import sys
from importlib.util import find_spec
from pathlib import Path

spec = find_spec("skimage")
if spec is None or spec.origin is None:
    sys.exit("the photograph comes with scikit-image: pip install --no-deps scikit-image==0.26.0")
print(Path(spec.origin).parent / "data" / "astronaut.png")
