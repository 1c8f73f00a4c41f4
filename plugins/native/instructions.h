// All that an instruction set supplies, from its vector types V.
#pragma once

#include "attend.h"
#include "clusters.h"
#include "match.h"
#include "snake.h"
#include "strip.h"

namespace edgetok {

template <class V>
const Kernels* kernels_of() {
  static const Kernels result{V::kName,      V::kRowsA8,   V::kRowsA32, pack_a8<V>,
                              strip_a8<V>, strip_a32<V>, match<V>,    cluster<V>,  attend<V>, snake<V>};
  return &result;
}

}  // namespace edgetok
