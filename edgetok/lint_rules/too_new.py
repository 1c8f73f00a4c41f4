"""Opset and IR version newer than the runtime takes.

onnxruntime refuses both at load (measured: 1.23.2 stops at opset 23 and IR 11, 1.32.0 at 28 and 14). TensorRT's parser
goes operator by operator; above the opset that its operator table names, an operator may be read by old rules.
"""

from collections.abc import Iterator

from edgetok.graph import OPSET
from edgetok.lint_rules import Example, Finding, Graph, Target, error, warning


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding each for the opset and the IR version."""
    opset, ir_version, offer = graph.model.opset_imports.get("", 0), graph.model.ir_version, target.runtime
    if offer.max_opset and opset > offer.max_opset:
        if target.tensorrt:
            yield warning(
                None,
                f"the model has opset {opset}; {offer.name} {offer.version} documents opsets up to {offer.max_opset}",
                "lower the opset for this target, or build and compare there",
            )
        else:
            yield error(
                None,
                f"the model has opset {opset}; {offer.name} {offer.version} takes at most {offer.max_opset}",
                "export at opset 23, which edgetok writes"
                if offer.max_opset >= OPSET
                else f"edgetok writes opset {OPSET}: take a newer {offer.name}, or another runtime",
            )
    if offer.max_ir and ir_version > offer.max_ir:
        yield error(
            None,
            f"the model has IR version {ir_version}; {offer.name} {offer.version} takes at most {offer.max_ir}",
            "save it with IR version 10 (11 with 4-bit floats)",
        )


EXAMPLES = (
    Example(
        "x86-cpu",
        "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        "error",
        "opset 24; onnxruntime 1.23.2 takes at most 23",
        opset=24,
    ),
    Example("x86-cpu", "g (float[2] x) => (float[2] y) { y = Relu(x) }", None),
    Example(
        "jetson-orin-nano-jp51",
        "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        "error",
        "edgetok writes opset 23: take a newer onnxruntime",
    ),
    Example(
        "x86-cpu",
        '<ir_version: 12, opset_import: ["": 23]> g (float[2] x) => (float[2] y) { y = Relu(x) }',
        "error",
        "save it with IR version 10",
    ),
    Example(
        "jetson-orin-nano-jp62",
        "g (float[2] x) => (float[2] y) { y = Relu(x) }",
        "warning",
        "tensorrt 10.3.0 documents opsets up to 20",
    ),
    Example("jetson-orin-nano-jp62", "g (float[2] x) => (float[2] y) { y = Relu(x) }", None, opset=20),
)
