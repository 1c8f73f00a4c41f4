"""Weights that do not fit into the device's memory, or leave too little of it.

Half is a rule of thumb, not a measurement: activations, the runtime and, on a Jetson, the system want the rest.
"""

from collections.abc import Iterator

from edgetok.lint_rules import Finding, Graph, Target, error, warning


def check(graph: Graph, target: Target) -> Iterator[Finding]:
    """One finding for the model."""
    memory = target.device.memory
    weights = (
        sum(v.const_value.nbytes for v in graph.model.graph.initializers.values() if v.const_value is not None) / 1e9
    )
    if memory is None:
        return
    rewrite = "quantise the weights, or use float16"
    if weights > memory.gigabytes:
        yield error(None, f"the weights take {weights:.1f} GB, the device has {memory.gigabytes:g} GB", rewrite)
    elif weights > memory.gigabytes / 2:
        yield warning(
            None,
            f"the weights take {weights:.1f} of {memory.gigabytes:g} GB, which leaves little for the rest",
            rewrite,
        )
