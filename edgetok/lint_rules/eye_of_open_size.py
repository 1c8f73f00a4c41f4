"""EyeLike of a matrix whose size is open.

Measured with TensorRT-RTX 1.7.1, whose importer says that it "does not work for dynamically shaped tensors"; it is
onnx-tensorrt's, as TensorRT's is.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Example, Finding, Graph, Target, error


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding per node; sizes that are not known here may be known to the importer."""
    if not target.tensorrt:
        return
    for node in graph.nodes("EyeLike"):
        value = node.inputs[0]
        lengths = () if value is None or value.shape is None else tuple(value.shape)
        names = [str(length) for length in lengths if not isinstance(length, int)]
        if any(name != "None" and not name.startswith("unk__") for name in names):
            yield error(
                node,
                f"its size {' x '.join(map(str, lengths))} is open, and {target.runtime.name} imports fixed ones only",
                "fix the size, or write Equal of two Range and a Cast",
            )


EXAMPLES = (
    Example("rtx-4090", "g (float[b,4] x) => (float[b,4] y) { y = EyeLike(x) }", "error", "its size b x 4 is open"),
    Example("rtx-4090", "g (float[4,4] x) => (float[4,4] y) { y = EyeLike(x) }", None),
    Example("x86-cpu", "g (float[b,4] x) => (float[b,4] y) { y = EyeLike(x) }", None),
)
