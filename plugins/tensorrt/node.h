// What a plugin node says of its kernel (edgetok/tensorrt/node.py), read from TensorRT's fields.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "term.h"

namespace edgetok {

struct Output {
    nvinfer1::DataType type;
    std::vector<std::string> shape; // terms
};

constexpr std::array<char const*, 8> ATTRIBUTES
    = {"kernel", "ptx", "grid", "block", "shared", "scalars", "inputs", "results"};

inline std::optional<nvinfer1::DataType> type(std::string const& name)
{
    using nvinfer1::DataType;
    static std::pair<char const*, DataType> const known[] = {{"float", DataType::kFLOAT}, {"half", DataType::kHALF},
        {"int8", DataType::kINT8}, {"int32", DataType::kINT32}, {"bool", DataType::kBOOL}, {"uint8", DataType::kUINT8},
        {"bf16", DataType::kBF16}, {"int64", DataType::kINT64}};
    for (auto const& [called, value] : known)
        if (name == called)
            return value;
    return std::nullopt;
}

class Node {
public:
    // Read the fields. Returns what is wrong with them, or an empty text.
    std::string read(nvinfer1::PluginFieldCollection const& fields)
    {
        for (int i = 0; i < fields.nbFields; ++i) {
            auto const& field = fields.fields[i];
            for (size_t known = 0; known < ATTRIBUTES.size(); ++known) {
                if (!field.name || std::strcmp(field.name, ATTRIBUTES[known]) != 0)
                    continue;
                if (field.type != nvinfer1::PluginFieldType::kCHAR || field.length < 0 || (field.length && !field.data))
                    return std::string(ATTRIBUTES[known]) + " must be text";
                // A text's terminating zero may be counted or not.
                std::string const text(static_cast<char const*>(field.data), field.length);
                texts[known] = text.substr(0, text.find('\0'));
            }
        }
        return parse();
    }

    std::string const& text(size_t attribute) const { return texts[attribute]; }

    std::string const& kernel() const { return texts[0]; }
    std::string const& ptx() const { return texts[1]; }
    std::vector<std::string> grid, scalars;
    int block = 0, shared = 0;
    std::vector<nvinfer1::DataType> inputs;
    std::vector<Output> outputs;

private:
    std::array<std::string, ATTRIBUTES.size()> texts;

    std::string parse()
    {
        grid = parts(texts[2], ',');
        scalars = parts(texts[5], ',');
        inputs.clear();
        outputs.clear();
        auto const threads = number(trimmed(texts[3])), bytes = number(trimmed(texts[4]));
        if (kernel().empty() || ptx().find(".entry " + kernel() + "(") == std::string::npos)
            return "kernel must name an entry of ptx, got \"" + kernel() + "\"";
        if (grid.size() != 3)
            return "grid must be three terms, got \"" + texts[2] + "\"";
        if (!threads || *threads < 1 || *threads > 1024)
            return "block must be 1 to 1024 threads, got \"" + texts[3] + "\"";
        if (!bytes || *bytes > 48 << 10)
            return "shared must be at most 49152 bytes, got \"" + texts[4] + "\"";
        block = *threads;
        shared = *bytes;
        for (auto const& name : parts(texts[6], ',')) {
            auto const kind = type(name);
            if (!kind)
                return "inputs has no type \"" + name + "\"";
            inputs.push_back(*kind);
        }
        for (auto const& result : parts(texts[7], ';')) {
            auto const colon = result.find(':');
            auto const kind = type(trimmed(result.substr(0, colon)));
            if (colon == std::string::npos || !kind)
                return "results must be \"type: size, ...\", got \"" + result + "\"";
            outputs.push_back({*kind, parts(result.substr(colon + 1), ',')});
        }
        if (inputs.empty() || outputs.empty())
            return "inputs and results must name at least one tensor each";
        for (auto const& output : outputs)
            if (output.shape.size() > nvinfer1::Dims::MAX_DIMS)
                return "results has more axes than TensorRT's 8";
        return "";
    }
};

} // namespace edgetok
