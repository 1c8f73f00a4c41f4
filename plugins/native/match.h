// The best match of each row, written once over the vector types V of an instruction set.
#pragma once

#include "strip.h"

namespace edgetok {

// For each of at most kMatched rows of a (rows, width) the largest of its products with b's rows, plus their bias, and
// where it is: the first of equal ones. `panels` (strips, width, 32) holds b, 32 rows side by side; `bias` (strips, 32)
// ends in -infinity. A strip serves all rows while it is in the cache, and the whole matrix is never there.
template <class V>
void match(const float* a, int64_t rows, int64_t width, const float* panels, const float* bias, int64_t strips,
           float* best, int64_t* place) {
  constexpr int kRows = V::kRowsA32;
  alignas(64) float products[kRows * kStrip], top[kMatched * kStrip];
  alignas(64) int32_t where[kMatched * kStrip];
  for (int64_t i = 0; i < rows * kStrip; ++i) top[i] = -__builtin_inff(), where[i] = 0;
  for (int64_t strip = 0; strip < strips; ++strip)
    for (int64_t row = 0; row < rows; row += kRows) {
      const int64_t count = least(kRows, rows - row);
      for (int64_t r = 0; r < count; ++r) std::memcpy(products + r * kStrip, bias + strip * kStrip, 4 * kStrip);
      with_rows<kRows>(count, [&]<int R> {
        product_a32<V, R>(a + row * width, width, 1, panels + strip * width * kStrip, width, products, kStrip, true);
      });
      const int32_t first = static_cast<int32_t>(strip * kStrip);
      float* t = top + row * kStrip;
      int32_t* w = where + row * kStrip;
      for (int64_t r = 0; r < count; ++r)
        for (int64_t i = r * kStrip, lane = 0; lane < kStrip; ++i, ++lane) {
          const bool better = products[i] > t[i];
          t[i] = better ? products[i] : t[i];
          w[i] = better ? first + static_cast<int32_t>(lane) : w[i];
        }
    }
  for (int64_t row = 0; row < rows; ++row) {
    const float* t = top + row * kStrip;
    const int32_t* w = where + row * kStrip;
    int64_t lane = 0;
    for (int64_t i = 1; i < kStrip; ++i)
      if (t[i] > t[lane] || (t[i] == t[lane] && w[i] < w[lane])) lane = i;
    best[row] = t[lane], place[row] = w[lane];
  }
}

}  // namespace edgetok
