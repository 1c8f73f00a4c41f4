"""Build an ONNX file with TensorRT-RTX, for one compute capability, without a GPU: `python rtx_build.py FILE SM86`.

A process of its own, because what TensorRT does not like can crash it. Prints "built N bytes", or what is in the way.
Without arguments it builds what its standard input names, a JSON list per line, and answers with a line for each.
"""

import json
import os
import sys

import tensorrt_rtx as trt


class Log(trt.ILogger):
    """Keeps what goes wrong."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


def main(file: str, capability: str) -> None:
    """Parse and build."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(file):
        sys.exit(f"not parsed: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        shape = [1 if dim < 0 else dim for dim in tensor.shape]
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        sys.exit(f"not built: {log.errors[0] if log.errors else 'no reason given'}")
    print(f"built {engine.nbytes} bytes")


def serve() -> None:
    """Answer each line: null where it was built, or what is in the way."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library prints
    for line in sys.stdin:
        try:
            main(*json.loads(line))
            reason = None
        except SystemExit as error:
            reason = str(error)
        print(json.dumps(reason), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else serve()
