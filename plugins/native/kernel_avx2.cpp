#include "kernel_avx2.h"

namespace edgetok {

const Kernels* kernels_avx2() {
#if defined(__AVX2__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return kernels_of<Avx2<false>>();
#endif
  return nullptr;
}

}  // namespace edgetok
