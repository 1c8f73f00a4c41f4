#include "plugin.h"

#include <cstdint>
#include <cstdio>
#include <new>

namespace edgetok {
namespace {

using namespace nvinfer1;

// Terms over sizes that TensorRT knows as expressions.
struct Expressions {
    using Value = IDimensionExpr const*;
    DimsExprs const* inputs;
    int count;
    IExprBuilder& builder;

    std::optional<Value> size(int tensor, int axis) const
    {
        if (tensor >= count || axis >= inputs[tensor].nbDims)
            return std::nullopt;
        return inputs[tensor].d[axis];
    }
    std::optional<Value> constant(int value) const { return builder.constant(value); }
    std::optional<Value> operate(char name, Value left, Value right) const
    {
        auto const operation = name == '+' ? DimensionOperation::kSUM : DimensionOperation::kPROD;
        return builder.operation(operation, *left, *right);
    }
};

// Terms over sizes of tensors at hand.
struct Numbers {
    using Value = int64_t;
    PluginTensorDesc const* inputs;
    int count;

    std::optional<Value> size(int tensor, int axis) const
    {
        if (tensor >= count || axis >= inputs[tensor].dims.nbDims)
            return std::nullopt;
        return inputs[tensor].dims.d[axis];
    }
    std::optional<Value> constant(int value) const { return value; }
    std::optional<Value> operate(char name, Value left, Value right) const
    {
        Value result = 0;
        bool const over = name == '+' ? __builtin_add_overflow(left, right, &result)
                                      : __builtin_mul_overflow(left, right, &result);
        return over ? std::nullopt : std::optional(result);
    }
};

int failed(std::string const& plugin, std::string const& reason)
{
    std::fprintf(stderr, "edgetok::%s: %s\n", plugin.c_str(), reason.c_str());
    return -1;
}

} // namespace

IPluginV3* Plugin::clone() noexcept { return new (std::nothrow) Plugin(name, node); }

int32_t Plugin::getOutputDataTypes(DataType* types, int32_t outputs, DataType const*, int32_t inputs) const noexcept
{
    if (outputs != getNbOutputs() || inputs != static_cast<int32_t>(node.inputs.size()))
        return failed(name, "another number of tensors than its attributes say");
    for (int32_t i = 0; i < outputs; ++i)
        types[i] = node.outputs[i].type;
    return 0;
}

int32_t Plugin::getOutputShapes(DimsExprs const* inputs, int32_t count, DimsExprs const*, int32_t, DimsExprs* outputs,
    int32_t results, IExprBuilder& builder) noexcept
{
    Expressions algebra{inputs, count, builder};
    if (results != getNbOutputs())
        return failed(name, "another number of outputs than results says");
    for (int32_t i = 0; i < results; ++i) {
        auto const& shape = node.outputs[i].shape;
        outputs[i].nbDims = static_cast<int32_t>(shape.size());
        for (size_t axis = 0; axis < shape.size(); ++axis) {
            auto const size = evaluate(shape[axis], algebra);
            if (!size)
                return failed(name, "results has \"" + shape[axis] + "\", which is no size over its inputs");
            outputs[i].d[axis] = *size;
        }
    }
    return 0;
}

bool Plugin::supportsFormatCombination(
    int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs, int32_t outputs) noexcept
{
    if (inputs != static_cast<int32_t>(node.inputs.size()) || outputs != getNbOutputs())
        return false;
    auto const wanted = position < inputs ? node.inputs[position] : node.outputs[position - inputs].type;
    return tensors[position].desc.type == wanted && tensors[position].desc.format == TensorFormat::kLINEAR;
}

bool Plugin::load(Driver const& driver)
{
    void* current = nullptr;
    if (driver.getContext(&current) || !current)
        return false;
    if (function && current == context)
        return true;
    unload();
    if (driver.load(node.ptx(), node.kernel().c_str(), &module, &function)) {
        function = nullptr;
        return false;
    }
    context = current;
    return true;
}

void Plugin::unload()
{
    if (auto const* driver = module ? Driver::get() : nullptr)
        driver->unload(module);
    module = function = nullptr;
}

int32_t Plugin::enqueue(PluginTensorDesc const* input, PluginTensorDesc const*, void const* const* inputs,
    void* const* outputs, void*, cudaStream_t stream) noexcept
{
    auto const* driver = Driver::get();
    if (!driver)
        return failed(name, "libcuda.so.1 was not found: NVIDIA's driver is needed to run");
    if (!load(*driver))
        return failed(name, "the driver refused the PTX: it is of a newer version, or for another GPU");
    Numbers algebra{input, static_cast<int>(node.inputs.size())};
    unsigned grid[3];
    for (int axis = 0; axis < 3; ++axis) {
        auto const value = evaluate(node.grid[axis], algebra);
        if (!value || *value < 0 || *value > (axis ? 65535 : 2147483647))
            return failed(name, "grid has \"" + node.grid[axis] + "\", which is no launch for these sizes");
        if (*value == 0)
            return 0; // nothing to compute
        grid[axis] = static_cast<unsigned>(*value);
    }
    std::vector<int32_t> scalars;
    for (auto const& term : node.scalars) {
        auto const value = evaluate(term, algebra);
        if (!value || *value < INT32_MIN || *value > INT32_MAX)
            return failed(name, "scalars has \"" + term + "\", which is no int32 for these sizes");
        scalars.push_back(static_cast<int32_t>(*value));
    }
    std::vector<void const*> pointers(inputs, inputs + node.inputs.size());
    pointers.insert(pointers.end(), outputs, outputs + node.outputs.size());
    std::vector<void*> arguments; // inputs, scalars, outputs
    for (size_t i = 0; i < node.inputs.size(); ++i)
        arguments.push_back(&pointers[i]);
    for (auto& scalar : scalars)
        arguments.push_back(&scalar);
    for (size_t i = node.inputs.size(); i < pointers.size(); ++i)
        arguments.push_back(&pointers[i]);
    int const error = driver->launch(function, grid[0], grid[1], grid[2], static_cast<unsigned>(node.block), 1, 1,
        static_cast<unsigned>(node.shared), stream, arguments.data(), nullptr);
    return error ? failed(name, "cuLaunchKernel gave error " + std::to_string(error)) : 0;
}

PluginFieldCollection const* Plugin::getFieldsToSerialize() noexcept
{
    fields.clear();
    for (size_t i = 0; i < ATTRIBUTES.size(); ++i) {
        auto const& text = node.text(i);
        fields.emplace_back(ATTRIBUTES[i], text.data(), PluginFieldType::kCHAR, static_cast<int32_t>(text.size()));
    }
    collection = {static_cast<int32_t>(fields.size()), fields.data()};
    return &collection;
}

} // namespace edgetok
