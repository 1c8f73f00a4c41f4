// A periodic activation, written once over the vector types V of an instruction set.
#pragma once

#include <cmath>

#include "kernels.h"

namespace edgetok {

constexpr float kFarthest = 8192;  // radians up to which pi in three parts is enough

// sin(t)^2 of |t| up to kFarthest, to 3e-7. Its period is pi, so that no quadrant has to be told from another.
template <class V>
inline float squared_sine(float t) {
  const float shifted = t * 0.318309886f + 12582912.0f, n = shifted - 12582912.0f;  // the nearest multiple
  const float r = ((t - n * 3.140625f) - n * 9.67502594e-4f) - n * 1.50995799e-7f;
  const float s = r * r;
  float p = -2.38466935e-8f;  // sin(r) of |r| up to pi / 2, to 2e-11 before rounding: fitted by weighted least squares
  p = p * s + 2.75226193e-6f;
  p = p * s - 1.98408045e-4f;
  p = p * s + 8.33333004e-3f;
  p = p * s - 0.166666672f;
  const float sine = r + r * (s * p);
  return sine * sine;
}

// x (count) -> x + sin(alpha x)^2 inverse, of at most kSnakes numbers
template <class V>
void snake(const float* __restrict x, int64_t count, float alpha, float inverse, float* __restrict y) {
  bool near = true;
  for (int64_t i = 0; i < count; ++i) near &= __builtin_fabsf(alpha * x[i]) <= kFarthest;
  if (near)
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] + squared_sine<V>(alpha * x[i]) * inverse;
  else  // infinities and NaN too
    for (int64_t i = 0; i < count; ++i) {
      const float sine = std::sin(alpha * x[i]);
      y[i] = x[i] + sine * sine * inverse;
    }
}

}  // namespace edgetok
