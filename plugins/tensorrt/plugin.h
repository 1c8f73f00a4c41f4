// The plugin of every operator: IPluginV3, for TensorRT 10.0 and newer. It launches the kernel that its node carries.
#pragma once

#include <string>
#include <vector>

#include "driver.h"
#include "node.h"

namespace edgetok {

constexpr char const *NAMESPACE = "edgetok", *VERSION = "1";

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
public:
    Plugin(std::string name, Node node)
        : name(std::move(name))
        , node(std::move(node))
    {
    }
    ~Plugin() override { unload(); }
    Plugin(Plugin const&) = delete;
    Plugin& operator=(Plugin const&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    nvinfer1::IPluginV3* clone() noexcept override;

    // Core
    char const* getPluginName() const noexcept override { return name.c_str(); }
    char const* getPluginVersion() const noexcept override { return VERSION; }
    char const* getPluginNamespace() const noexcept override { return NAMESPACE; }

    // Build: what the node says, checked against what it is given. 0 is success.
    int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(node.outputs.size()); }
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t inputs,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t outputs) noexcept override
    {
        return inputs == static_cast<int32_t>(node.inputs.size()) && outputs == getNbOutputs() ? 0 : -1;
    }
    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs, nvinfer1::DataType const*,
        int32_t inputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t count, nvinfer1::DimsExprs const*, int32_t,
        nvinfer1::DimsExprs* outputs, int32_t results, nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors, int32_t inputs,
        int32_t outputs) noexcept override;

    // Runtime
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const*, int32_t, nvinfer1::PluginTensorDesc const*,
        int32_t) noexcept override
    {
        return 0;
    }
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input, nvinfer1::PluginTensorDesc const* output,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    std::string name;
    Node node;
    void *context = nullptr, *module = nullptr, *function = nullptr; // of the driver, from the first launch on
    std::vector<nvinfer1::PluginField> fields;
    nvinfer1::PluginFieldCollection collection{};

    void unload();
    bool load(Driver const& driver);
};

} // namespace edgetok
