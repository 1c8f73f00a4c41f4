"""What edgetok calls of TensorRT and Polygraphy is there, with these arguments, in every version it is written for.

NVIDIA's own bindings are loaded on stubs of its libraries (tests/tensorrt): names and signatures are theirs, and
nothing is built. 10.3 is JetPack 6's. TensorRT-RTX's builder is called for real by tests/test_engine.py; what its
runtime is asked for takes a card, and is held against its bindings here.
"""

import inspect
import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from textwrap import dedent

import pytest

from tests.tensorrt import installed

CALLED = {  # by edgetok/engine/builder.py; what each is given by name or in this order
    "Builder.create_network": ["flags"],
    "OnnxParser.parse_from_file": ["model"],
    "OnnxParser.num_errors": [],
    "OnnxParser.get_error": ["index"],
    "ParserError.node_name": [],
    "ParserError.node_operator": [],
    "ParserError.desc": [],
    "Runtime.deserialize_cuda_engine": ["serialized_engine"],
    "ICudaEngine.create_execution_context": [],
    "ICudaEngine.create_engine_inspector": [],
    "IExecutionContext.set_input_shape": ["name", "shape"],
    "EngineInspector.execution_context": [],
    "EngineInspector.get_engine_information": ["format"],
    "IPluginRegistry.load_library": ["plugin_path"],
    "IProgressMonitor.phase_start": ["phase_name", "parent_phase", "num_steps"],
    "IProgressMonitor.step_complete": ["phase_name", "step"],
    "IProgressMonitor.phase_finish": ["phase_name"],
    "ILogger.log": ["severity"],
    "ILogger.Severity.ERROR": [],
    "ProfilingVerbosity.DETAILED": [],
    "LayerInformationFormat.JSON": [],
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": [],
}
RTX_CALLED = {  # by edgetok/engine/session.py and, through Polygraphy, by its runner
    "Runtime.deserialize_cuda_engine": ["serialized_engine"],
    "ICudaEngine.create_runtime_config": ["IRuntimeConfig"],
    "ICudaEngine.create_execution_context": ["runtime_config: tensorrt_rtx_bindings.tensorrt_rtx.IRuntimeConfig"],
    "IRuntimeConfig.cuda_graph_strategy": [],
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE": [],
    "IExecutionContext.engine": [],
    "IExecutionContext.set_input_shape": ["name", "shape"],
    "IExecutionContext.set_tensor_address": ["name", "memory"],
    "IExecutionContext.set_output_allocator": ["name", "output_allocator"],
    "IExecutionContext.execute_async_v3": ["stream_handle"],
}
SCRIPT = """
    import functools, importlib, json, sys
    trt = importlib.import_module(sys.argv[1])
    told = {}
    for name in json.load(sys.stdin):
        found = functools.reduce(lambda at, part: getattr(at, part, None), name.split("."), trt)
        told[name] = None if found is None else found.__doc__ or ""
    print(json.dumps([trt.__version__, told]))
"""


def check(module: str, called: dict[str, list[str]], version: str, environment: dict[str, str]) -> None:
    """Every name is in the bindings, and its signature has the arguments."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(SCRIPT), module], input=json.dumps(list(called)), text=True,
        env=environment, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded, told = json.loads(done.stdout.splitlines()[-1])
    assert loaded == version
    for name, arguments in called.items():
        assert told[name] is not None, name
        assert all(argument in told[name] for argument in arguments), (name, told[name])


@pytest.mark.parametrize("version", ["10.3.0", "10.9.0.34", "10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_tensorrt_has_what_the_builder_calls(version: str) -> None:
    check("tensorrt_bindings", CALLED, version, installed.bindings(version))


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_rtx_has_what_a_session_calls() -> None:
    check("tensorrt_rtx", RTX_CALLED, metadata.version("tensorrt_rtx"), dict(os.environ))


def test_polygraphy_takes_what_it_is_given() -> None:
    """By edgetok/engine/: the names of arguments, and how many there are without one."""
    pytest.importorskip("polygraphy")
    from polygraphy.backend.trt import (
        CreateConfig,
        Profile,
        TrtRunner,
        engine_bytes_from_network,
        engine_from_bytes,
    )
    from polygraphy.cuda import DeviceArray
    from polygraphy.datatype import DataType

    def accepted(call: object, *given: str) -> None:
        names = {name for base in getattr(call, "__mro__", (call,)) for name in _parameters(base)}
        assert set(given) <= names, (call, names)

    accepted(CreateConfig, "profiles", "progress_monitor", "profiling_verbosity", "load_timing_cache")
    accepted(engine_bytes_from_network, "network", "config", "save_timing_cache")
    accepted(engine_from_bytes, "serialized_engine")
    inspect.signature(Profile.add).bind(None, "x", (1,), (1,), (1,))
    inspect.signature(TrtRunner.__init__).bind(None, None)
    inspect.signature(TrtRunner.infer).bind(None, {}, check_inputs=False)
    inspect.signature(DeviceArray.__init__).bind(None, (1,), None)
    inspect.signature(DeviceArray.copy_from).bind(None, None)
    inspect.signature(DataType.from_dtype).bind(None)


def _parameters(call: object) -> list[str]:
    body = call.__dict__.get("__init__") if isinstance(call, type) else call
    return list(inspect.signature(body).parameters) if body else []


def test_onnxruntime_takes_what_it_is_given() -> None:
    """onnxruntime-gpu is the same Python as onnxruntime; the provider's settings are its own."""
    import onnxruntime as ort

    inspect.signature(ort.OrtValue.ortvalue_from_numpy).bind(None, "cuda", 0)
    inspect.signature(ort.IOBinding.bind_ortvalue_input).bind(None, "x", None)
    inspect.signature(ort.IOBinding.bind_output).bind(None, "y", "cuda")
    inspect.signature(ort.IOBinding.copy_outputs_to_cpu).bind(None)
    inspect.signature(ort.InferenceSession.run_with_iobinding).bind(None, None)
