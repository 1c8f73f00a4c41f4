"""TensorRT plugins of the operators: what a node carries, and the two forms of plugin that read it.

    term.py        sizes that are known only when the engine runs
    node.py        the attributes of a plugin node: PTX, entry, launch, outputs
    decorator.py   the plugin by TensorRT's decorators (10.9 and newer): the engine holds the PTX and needs no Python
    library.py     builds the plugin in C++ (plugins/tensorrt/) for TensorRT 10.3, as JetPack 6 has it

A node says all of its kernel, so neither form knows one operator from another.
"""
