// Drives the C++ plugin as TensorRT does, with sizes (3, 31, 8) and (3, 12); stub_driver.c is its libcuda. Its arguments are
// attributes, NAME=TEXT each. Prints what each step gave.
#include <cstdio>
#include <memory>
#include <vector>

#include "plugin.h"

using namespace nvinfer1;

extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count);

// TensorRT's interfaces of expressions call an implementation behind them; here each is its own.
struct Number final : IDimensionExpr, apiv::VDimensionExpr {
    explicit Number(int64_t value)
        : value(value)
    {
        mImpl = this;
    }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
};

struct Builder final : IExprBuilder, apiv::VExprBuilder {
    Builder() { mImpl = this; }
    IDimensionExpr const* constant(int64_t value) override
    {
        held.push_back(std::make_unique<Number>(value));
        return held.back().get();
    }
    IDimensionExpr const* operation(
        DimensionOperation name, IDimensionExpr const& left, IDimensionExpr const& right) override
    {
        auto const a = left.getConstantValue(), b = right.getConstantValue();
        switch (name) {
        case DimensionOperation::kSUM: return constant(a + b);
        case DimensionOperation::kPROD: return constant(a * b);
        default: return nullptr;
        }
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override
    {
        return nullptr;
    }
    std::vector<std::unique_ptr<Number>> held;
};

int main(int argc, char** argv)
{
    std::vector<std::string> names, texts;
    for (int i = 1; i < argc; ++i) {
        std::string const argument = argv[i];
        names.push_back(argument.substr(0, argument.find('=')));
        texts.push_back(argument.substr(argument.find('=') + 1));
    }
    std::vector<PluginField> fields;
    for (size_t i = 0; i < names.size(); ++i)
        fields.emplace_back(names[i].c_str(), texts[i].data(), PluginFieldType::kCHAR, texts[i].size());
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    int32_t count = 0;
    auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    std::unique_ptr<IPluginV3> first(creator->createPlugin("one", &collection, TensorRTPhase::kBUILD));
    if (!first)
        return 1;
    // What an engine keeps is what another process makes the plugin of.
    auto* written = static_cast<IPluginV3OneRuntime*>(first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    std::unique_ptr<IPluginV3> plugin(
        creator->createPlugin("one", written->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
    auto* build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));

    Builder builder;
    DimsExprs in[2], out[1];
    PluginTensorDesc tensors[3]{};
    int64_t const sizes[2][3] = {{3, 31, 8}, {3, 12, 0}};
    DataType const kinds[2] = {DataType::kFLOAT, DataType::kINT64};
    for (int i = 0; i < 2; ++i) {
        in[i].nbDims = tensors[i].dims.nbDims = i ? 2 : 3;
        for (int axis = 0; axis < in[i].nbDims; ++axis) {
            in[i].d[axis] = static_cast<apiv::VExprBuilder&>(builder).constant(sizes[i][axis]);
            tensors[i].dims.d[axis] = sizes[i][axis];
        }
        tensors[i].type = kinds[i];
    }
    DataType type{};
    std::printf("types %d", build->getOutputDataTypes(&type, 1, kinds, 2));
    std::printf(" %d\nshapes %d:", static_cast<int>(type), build->getOutputShapes(in, 2, nullptr, 0, out, 1, builder));
    for (int axis = 0; axis < out[0].nbDims; ++axis)
        std::printf(" %d", static_cast<int>(out[0].d[axis]->getConstantValue()));
    DynamicPluginTensorDesc all[3]{};
    for (int i = 0; i < 2; ++i)
        all[i].desc = tensors[i];
    all[2].desc.type = DataType::kFLOAT;
    std::printf("\nformats");
    for (int position = 0; position < 3; ++position)
        std::printf(" %d", build->supportsFormatCombination(position, all, 2, 1));
    all[1].desc.type = DataType::kINT32;
    std::printf(" %d\n", build->supportsFormatCombination(1, all, 2, 1));

    std::unique_ptr<IPluginV3> copy(plugin->clone());
    plugin.reset();
    auto* run = static_cast<IPluginV3OneRuntime*>(copy->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    void const* inputs[2] = {reinterpret_cast<void*>(0x10), reinterpret_cast<void*>(0x20)};
    void* outputs[1] = {reinterpret_cast<void*>(0x30)};
    auto* stream = reinterpret_cast<cudaStream_t>(0x40);
    for (int64_t batch : {3, 5, 0}) { // loaded once; nothing is launched for an empty batch
        tensors[0].dims.d[0] = tensors[1].dims.d[0] = batch;
        std::printf("enqueue %d\n", run->enqueue(tensors, tensors + 2, inputs, outputs, nullptr, stream));
    }
}
