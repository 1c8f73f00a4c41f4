"""NVIDIA's plugin registry, of the lean runtime, with the C++ library in it. Run in a process of its own; prints JSON.

    python registry.py LIBRARY OPERATOR < fields.json

The runtime's Python package must be importable. fields.json: a list of {name: text}; one plugin is made of each.
"""

import json
import sys

import tensorrt_lean_bindings as trt

library, operator = sys.argv[1:]
registry = trt.get_plugin_registry()
registry.load_library(library)
creator = registry.get_creator(operator, "1", "edgetok")
told: dict[str, object] = {
    "creators": sorted(one.name for one in registry.all_creators if one.plugin_namespace == "edgetok"),
    "fields": [field.name for field in creator.field_names],
    "stranger": registry.get_creator("NoSuchOperator", "1", "edgetok") is None,
}


def field(name: str, value: object) -> trt.PluginField:
    """A field of text; a number is passed as a number."""
    if isinstance(value, str):
        return trt.PluginField(name, value.encode(), trt.PluginFieldType.CHAR)
    import numpy as np

    return trt.PluginField(name, np.array([value], np.int32), trt.PluginFieldType.INT32)


plugins = []
for values in json.load(sys.stdin):
    given = trt.PluginFieldCollection([field(name, value) for name, value in values.items()])
    plugin = creator.create_plugin("one", given, trt.TensorRTPhase.RUNTIME)
    if plugin is None:
        plugins.append(None)
        continue
    build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    plugins.append([core.plugin_name, core.plugin_namespace, build.num_outputs])
print(json.dumps(told | {"plugins": plugins}))
