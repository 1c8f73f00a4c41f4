// Lets the plugin library launch one node on a GPU, on tensors of the caller's: TensorRT's part, for plugin_launch.py.
#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

using namespace nvinfer1;

// The plugin named `op` of the library at `path`, as an engine makes it: from what another of its kind wrote down.
// Nothing where it refuses the attributes.
extern "C" __attribute__((visibility("default"))) void* made(char const* path, char const* op, int count, char const* const* names, char const* const* texts)
{
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    auto* all = library ? reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"))
                        : nullptr;
    if (!all)
        return nullptr;
    std::vector<PluginField> fields;
    for (int i = 0; i < count; ++i)
        fields.emplace_back(names[i], texts[i], PluginFieldType::kCHAR, static_cast<int32_t>(strlen(texts[i])));
    PluginFieldCollection const collection{count, fields.data()};
    int32_t creators = 0;
    auto* const* given = all(creators);
    for (int32_t i = 0; i < creators; ++i) {
        auto* creator = static_cast<IPluginCreatorV3One*>(given[i]);
        if (std::string(creator->getPluginName()) != op)
            continue;
        std::unique_ptr<IPluginV3> first(creator->createPlugin(op, &collection, TensorRTPhase::kBUILD));
        if (!first)
            return nullptr;
        auto* runtime = static_cast<IPluginV3OneRuntime*>(first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        return creator->createPlugin(op, runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
    }
    return nullptr;
}

// Launch it; `sizes` has eight numbers for each input, of which `ranks` are its axes. 0 is success.
extern "C" __attribute__((visibility("default"))) int enqueue(void* plugin, int inputs, int const* types, int const* ranks, int64_t const* sizes,
    void const* const* reads, void* const* writes, void* stream)
{
    auto* one = static_cast<IPluginV3*>(plugin);
    auto* runtime = static_cast<IPluginV3OneRuntime*>(one->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    std::vector<PluginTensorDesc> tensors(inputs);
    for (int i = 0; i < inputs; ++i) {
        tensors[i].type = static_cast<DataType>(types[i]);
        tensors[i].dims.nbDims = ranks[i];
        for (int axis = 0; axis < ranks[i]; ++axis)
            tensors[i].dims.d[axis] = sizes[8 * i + axis];
    }
    return runtime->enqueue(
        tensors.data(), nullptr, reads, writes, nullptr, static_cast<cudaStream_t>(stream));
}
