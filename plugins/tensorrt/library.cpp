// What TensorRT looks for in a plugin library: a creator per operator, all of one kind.
#include <cstdio>
#include <memory>
#include <new>

#include "plugin.h"

#ifndef EDGETOK_OPERATORS
#error "built by `edgetok build-plugins`, which names the operators: -DEDGETOK_OPERATORS=\"Name,Name\""
#endif

namespace edgetok {
namespace {

using namespace nvinfer1;

ILoggerFinder* loggers = nullptr;

void report(std::string const& message)
{
    if (auto* logger = loggers ? loggers->findLogger() : nullptr)
        logger->log(ILogger::Severity::kERROR, message.c_str());
    else
        std::fprintf(stderr, "%s\n", message.c_str());
}

class Creator final : public IPluginCreatorV3One {
public:
    explicit Creator(std::string name)
        : name(std::move(name))
    {
        for (auto const* attribute : ATTRIBUTES)
            fields.emplace_back(attribute, nullptr, PluginFieldType::kCHAR, 1);
        collection = {static_cast<int32_t>(fields.size()), fields.data()};
    }

    // A plugin, or nullptr with a message where the fields are wrong.
    IPluginV3* createPlugin(char const*, PluginFieldCollection const* given, TensorRTPhase) noexcept override
    {
        Node node;
        auto const wrong = given ? node.read(*given) : std::string("no attributes");
        if (!wrong.empty()) {
            report("edgetok::" + name + ": " + wrong + "; write the node with edgetok's lowering `plugins`");
            return nullptr;
        }
        return new (std::nothrow) Plugin(name, std::move(node));
    }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection; }
    char const* getPluginName() const noexcept override { return name.c_str(); }
    char const* getPluginVersion() const noexcept override { return VERSION; }
    char const* getPluginNamespace() const noexcept override { return NAMESPACE; }

private:
    std::string name;
    std::vector<PluginField> fields;
    PluginFieldCollection collection{};
};

} // namespace
} // namespace edgetok

#define EDGETOK_EXPORT extern "C" __attribute__((visibility("default")))

EDGETOK_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { edgetok::loggers = finder; }

EDGETOK_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static std::vector<std::unique_ptr<edgetok::Creator>> held;
    static std::vector<nvinfer1::IPluginCreatorInterface*> creators;
    if (creators.empty())
        for (auto const& name : edgetok::parts(EDGETOK_OPERATORS, ',')) {
            held.push_back(std::make_unique<edgetok::Creator>(name));
            creators.push_back(held.back().get());
        }
    count = static_cast<int32_t>(creators.size());
    return creators.data();
}
