#include "kernel_avx2.h"

#if defined(__AVXVNNI__)
#include <cpuid.h>
#endif

namespace edgetok {

const Kernels* kernels_avxvnni() {
#if defined(__AVXVNNI__)
  unsigned a = 0, b = 0, c = 0, d = 0;  // leaf 7.1: what __builtin_cpu_supports of g++ 11 does not know
  if (kernels_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4)) return kernels_of<Avx2<true>>();
#endif
  return nullptr;
}

}  // namespace edgetok
