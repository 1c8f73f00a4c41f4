"""Our declaration of ONNX Runtime's C API against the official header, which a package of the npm registry carries."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "com.github.asus4.onnxruntime@0.4.9"  # MIT
MEMBERS = {  # of OrtCustomOp: ours and the official ones
    "version": "version",
    "create_kernel": "CreateKernel",
    "get_name": "GetName",
    "get_provider": "GetExecutionProviderType",
    "get_input_type": "GetInputType",
    "get_input_count": "GetInputTypeCount",
    "get_output_type": "GetOutputType",
    "get_output_count": "GetOutputTypeCount",
    "compute": "KernelCompute",
    "destroy": "KernelDestroy",
    "get_input_characteristic": "GetInputCharacteristic",
    "get_output_characteristic": "GetOutputCharacteristic",
    "get_input_memory": "GetInputMemoryType",
    "get_variadic_input_min": "GetVariadicInputMinArity",
    "get_variadic_input_homogeneity": "GetVariadicInputHomogeneity",
    "get_variadic_output_min": "GetVariadicOutputMinArity",
    "get_variadic_output_homogeneity": "GetVariadicOutputHomogeneity",
    "create_kernel_v2": "CreateKernelV2",
    "compute_v2": "KernelComputeV2",
    "infer_shape": "InferOutputShapeFn",
    "get_start_version": "GetStartVersion",
    "get_end_version": "GetEndVersion",
    "get_may_inplace": "GetMayInplace",
    "release_may_inplace": "ReleaseMayInplace",
    "get_alias_map": "GetAliasMap",
    "release_alias_map": "ReleaseAliasMap",
}
VALUES = {
    "kFloat": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
    "kUint8": "ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8",
    "kHalf": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16",
    "kAny": "ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED",
    "kInvalidArgument": "ORT_INVALID_ARGUMENT",
}


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the official header."""
    folder = tmp_path_factory.mktemp("npm")
    for tool in ("npm", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    packed = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
    if packed.returncode:
        pytest.skip(f"npm has no {PACKAGE}: {packed.stderr.strip()[-200:]}")
    (archive,) = folder.glob("*.tgz")
    subprocess.run(["tar", "xzf", archive, "--wildcards", "*/Headers/*.h"], cwd=folder, check=True)
    archive.unlink()
    return next(folder.rglob("onnxruntime_c_api.h")).parent


@pytest.mark.full
def test_declared_as_in_the_official_header(headers: Path, tmp_path: Path) -> None:
    ours = (ROOT / "plugins" / "native" / "ort_api.h").read_text()
    (functions,) = re.findall(r"enum Function : int \{(.*?)\};", ours, re.DOTALL)
    names = re.findall(r"(\w+) = \d+", functions)
    members = re.findall(r"\(\*(\w+)\)\(", ours.partition("struct CustomOp")[2])
    assert len(names) > 20 and set(MEMBERS) == {"version", *members}
    lines = [f"static_assert(offsetof(OrtApi, {name}) == ort::{name} * sizeof(void*));" for name in names]
    lines += [f"static_assert(offsetof(ort::CustomOp, {a}) == offsetof(OrtCustomOp, {b}));" for a, b in MEMBERS.items()]
    lines += [f"static_assert(int(ort::{a}) == int({b}));" for a, b in VALUES.items()]
    lines.append("static_assert(sizeof(ort::ApiBase) == sizeof(OrtApiBase));")
    source = tmp_path / "compare.cpp"
    source.write_text("#include <cstddef>\n#include <onnxruntime_c_api.h>\n#include <ort_api.h>\n" + "\n".join(lines))
    folders = (f"-I{headers}", f"-I{ROOT / 'plugins' / 'native'}")
    done = subprocess.run(["g++", "-std=c++20", "-fsyntax-only", *folders, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
