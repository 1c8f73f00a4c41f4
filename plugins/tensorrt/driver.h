// The few entries of CUDA's driver interface that a launch needs, found in libcuda when the first kernel is loaded: so the
// library is built without CUDA's libraries, and loaded where no driver is.
#pragma once

#include <dlfcn.h>

#include <string>

namespace edgetok {

class Driver {
public:
    // The driver, or nullptr where there is none.
    static Driver const* get()
    {
        static Driver driver;
        return driver.complete() ? &driver : nullptr;
    }

    // Compile a PTX text for the current device. Returns the driver's error code, 0 for none.
    int load(std::string const& ptx, char const* kernel, void** module, void** function) const
    {
        int const error = loadData(module, ptx.c_str(), 0, nullptr, nullptr);
        return error ? error : getFunction(function, *module, kernel);
    }

    int (*getContext)(void**) = nullptr;
    int (*unload)(void*) = nullptr;
    int (*launch)(void* function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,
        unsigned blockZ, unsigned shared, void* stream, void** arguments, void** extra)
        = nullptr;

private:
    Driver()
    {
        if (void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
            find(library, "cuCtxGetCurrent", getContext);
            find(library, "cuModuleLoadDataEx", loadData);
            find(library, "cuModuleGetFunction", getFunction);
            find(library, "cuModuleUnload", unload);
            find(library, "cuLaunchKernel", launch);
        }
    }

    template <typename Function> static void find(void* library, char const* name, Function& function)
    {
        function = reinterpret_cast<Function>(dlsym(library, name));
    }

    bool complete() const { return getContext && loadData && getFunction && unload && launch; }

    int (*loadData)(void** module, void const* image, unsigned options, int* names, void** values) = nullptr;
    int (*getFunction)(void** function, void* module, char const* name) = nullptr;
};

} // namespace edgetok
