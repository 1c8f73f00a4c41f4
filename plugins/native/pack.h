// Rounding activations to int8, a block of a row at a time.
//
// Written with the compiler's own vectors: a block is a multiple of eight numbers, often only 16 or 32, too few for the
// loops that a compiler vectorises by itself (measured with blocks of 16: 2.3 ns a number as loops, 0.8 like this).
#pragma once

#include <cstring>

#include "kernels.h"

namespace edgetok {

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(8)));

struct Rounded {
  float scale;
  int32_t sum;
};

// Lane i takes what lane i ^ by holds.
template <class V>
Ints across(Ints x, int by) {
  return __builtin_shuffle(x, Ints{0, 1, 2, 3, 4, 5, 6, 7} ^ by);
}

// s = max |x| / 127 and q = x / s, half to even; a scale that is NaN if anything in the block is not finite.
template <class V>
Rounded round_block(const float* x, int64_t count, int8_t* q) {
  Ints most = {};  // |x| as integers: they order as the numbers do, NaN above infinity
  for (int64_t i = 0; i < count; i += 8) {
    Ints bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  for (int by : {4, 2, 1}) {
    const Ints other = across<V>(most, by);
    most = other > most ? other : most;
  }
  float largest;
  std::memcpy(&largest, &most, sizeof largest);
  const float s = most[0] < 0x7f800000 ? largest / 127 : __builtin_nanf("");
  const float by = s >= 1.17549435e-38f ? s : 1e38f;  // else nothing to be saved, or so small that it counts as zeros
  Ints sum = {};
  for (int64_t i = 0; i < count; i += 8) {
    Floats whole;
    std::memcpy(&whole, x + i, sizeof whole);
    whole /= by;
    whole += 12582912.0f;  // 1.5 * 2^23: the integer is now in the low bits
    const Ints integers = reinterpret_cast<Ints>(whole) - 0x4b400000;
    const Bytes bytes = __builtin_convertvector(integers, Bytes);
    std::memcpy(q + i, &bytes, sizeof bytes);
    sum += integers;
  }
  for (int by : {4, 2, 1}) sum += across<V>(sum, by);
  return {s, sum[0]};
}

// x (rows, K) -> values (inner / 4, rows, 4), scales, starts and sums
template <class V>
void pack_a8(const Weights& w, const float* x, int64_t rows, const Activations& tile) {
  int8_t q[kWidestBlock + 8] = {};  // zeros behind a block stay
  for (int64_t r = 0; r < rows; ++r, x += w.inputs)
    for (int64_t group = 0, b = 0; group < w.groups; ++group) {
      float group_sum = 0;
      for (const int64_t end = b + w.per_group; b < end; ++b) {
        float rest[kWidestBlock];
        const float* from = x + b * w.block;
        if (const int64_t left = w.inputs - b * w.block; left < w.block) {  // what lies behind a short row counts as 0
          std::memset(rest, 0, sizeof rest);
          if (left > 0) std::memcpy(rest, from, left * sizeof(float));
          from = rest;
        }
        const Rounded rounded = round_block<V>(from, w.block, q);
        for (int64_t i = 0; i < w.padded / 4; ++i)
          std::memcpy(tile.values + ((b * w.padded / 4 + i) * rows + r) * 4, q + i * 4, 4);
        tile.scales[b * rows + r] = rounded.scale * w.alpha;
        tile.starts[b * rows + r] = -V::kOffset * rounded.sum;
        group_sum += rounded.scale * w.alpha * static_cast<float>(rounded.sum);
      }
      tile.sums[group * rows + r] = group_sum;
    }
}

}  // namespace edgetok
