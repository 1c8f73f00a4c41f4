"""Engines of TensorRT and TensorRT-RTX, built from a lowered graph in a process of their own and kept in the cache.

    order.py      what is to be built: graph, builder, compute capability, shapes; and the key of that in the cache
    build.py      builds an order, or finds its engine: once however many ask, whole or not at all
    builder.py    the process that builds: NVIDIA's libraries may crash, and hold the memory of a build until they end
    layers.py     what an engine says of its own layers, held against what was asked for
    card.py       which card, and which driver, this machine has
"""
