/* CUDA's driver interface, recording instead of running: the harness prints what a launch was given. */
#include <stdio.h>

int cuCtxGetCurrent(void** context) { return *context = (void*)1, 0; }
int cuModuleLoadDataEx(void** module, void const* image, unsigned count, int* names, void** values)
{
    *module = (void*)image;
    return names != 0 || values != 0 || count != 0;
}
int cuModuleGetFunction(void** function, void* module, char const* name)
{
    printf("function %s\n", name);
    return *function = module, 0;
}
int cuModuleUnload(void* module) { return printf("unloaded\n"), module == 0; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void* stream, void** arguments, void** extra)
{
    printf("launch %u %u %u, %u %u %u, %u bytes, stream %p:", gx, gy, gz, bx, by, bz, shared, stream);
    for (int i = 0; i < 2; ++i)
        printf(" %p", *(void**)arguments[i]);
    for (int i = 2; i < 5; ++i)
        printf(" %d", *(int*)arguments[i]);
    printf(" %p\n", *(void**)arguments[5]);
    return function == 0 || extra != 0;
}
