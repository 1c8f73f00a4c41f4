// The products, written once over a vector type V that each instruction set supplies (kernel_<set>.cpp).
//
// All of this is compiled once per instruction set, so nothing here may be shared between the objects: V lives in an
// unnamed namespace, and with it every function made from these templates.
//
// Activations come in tiles of up to V::kRows* rows, the rows next to each other (k, rows), so that a tile is read as
// one stream. Codes are decoded strip by strip into a panel that stays in the L1 cache and serves all rows; one row alone
// decodes in registers.
#pragma once

#include <cstring>

#include "weights.h"

namespace edgetok {

constexpr int64_t kPanel = 32768;   // bytes
constexpr int64_t kRowsAtOnce = 256;  // of one call of a strip

struct Activations {  // of all rows, tile after tile
  void* values;       // a8: (inner / 4, rows, 4) int8; a32: (inner, rows) fp32, zeros where a block is filled up
  float* scales;      // a8: (blocks, rows)
  int32_t* start;     // a8: (blocks, rows) what a sum starts at, where the bytes looked up have an offset
  float* sums;        // a8: (groups, rows), for planes that look nothing up
};

struct Kernels {
  const char* name;
  int64_t rows_a8, rows_a32;  // of a tile
  void (*pack_a8)(const Weights&, const float* x, int64_t rows, const Activations& tile);
  void (*pack_a32)(const Weights&, const float* x, int64_t rows, const Activations& tile);
  // Outputs of a strip, for rows from `from` (the first of a tile) to `to`, at most kRowsAtOnce.
  void (*strip_a8)(const Weights&, int64_t strip, const Activations&, int64_t from, int64_t to, float* y);
  void (*strip_a32)(const Weights&, int64_t strip, const Activations&, int64_t from, int64_t to, float* y);
};

const Kernels* kernels_avx512();  // null where it was not compiled, or the machine cannot run it
const Kernels* kernels_avx2();
const Kernels* kernels_neon();
const Kernels* kernels_portable();

// c (rows, 32) = or += a (depth, rows) panel (depth, 32)
template <class V, int R>
void product_a32(const float* a, const float* panel, int64_t depth, float* c, int64_t pitch, bool add) {
  constexpr int C = V::kColumnsA32, L = V::kLanes;
  for (int64_t column = 0; column < kStrip; column += C * L) {
    typename V::Float sum[R][C];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sum[r][v] = add ? V::load(c + r * pitch + column + v * L) : V::set(0);
    const float* b = panel + column;
    for (int64_t k = 0; k < depth; ++k, b += kStrip) {
      typename V::Float weight[C];
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) weight[v] = V::load(b + v * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto one = V::set(a[k * R + r]);
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[r][v] = V::fma(one, weight[v], sum[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) V::store(c + r * pitch + column + v * L, sum[r][v]);
  }
}

template <class V>
typename V::Float load_scale(const uint8_t* scales, int64_t index, bool half) {
  return half ? V::load_half(reinterpret_cast<const uint16_t*>(scales) + index)
              : V::load(reinterpret_cast<const float*>(scales) + index);
}

// The bytes that codes stand for. Bits = 8: they are there already, in a panel.
template <class V, int Bits, bool Mixed>
struct Lookup {
  typename V::Int table[Mixed ? 4 : 1];

  Lookup(const int8_t* tables, int64_t column) {
    if constexpr (Bits < 8)
      for (int j = 0; j < (Mixed ? 4 : 1); ++j) table[j] = V::load_table(tables + (j * kStrip / 4 + column / 4) * 16);
  }
  template <int Field>
  typename V::Int operator()(typename V::Int codes) const {
    if constexpr (Bits == 8) return codes;
    else if constexpr (Mixed) return V::lookup(table[0], table[1], table[2], table[3], V::template field<Field * Bits>(codes));
    else return V::lookup(table[0], V::template field<Field * Bits>(codes));
  }
};

struct Depth {  // a range of blocks
  int64_t from, to;
};

// c (rows, 32) = or += the sum over blocks of  start + a (bytes) * w (bytes),  times both scales and the pass's step
template <class V, int R, int Bits, bool Mixed>
void product_a8(const Weights& w, int64_t strip, const Pass& pass, const uint8_t* codes, const Activations& tile,
                Depth depth, float* c, int64_t pitch, bool add) {
  constexpr int C = V::kColumnsA8, L = V::kLanes, kFields = 8 / Bits;
  const int64_t chunks = w.padded / (4 * kFields);
  const uint8_t* scales = w.strip_scales(strip, pass.plane);
  for (int64_t column = 0; column < kStrip; column += C * L) {
    typename V::Float sum[R][C], scale[C];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) sum[r][v] = add ? V::load(c + r * pitch + column + v * L) : V::set(0);
    const int8_t* a = static_cast<const int8_t*>(tile.values) + depth.from * w.padded * R;
    const uint8_t* code = codes + column * 4;
    int64_t group = depth.from / w.per_group, left = w.per_group - depth.from % w.per_group;
    for (int64_t block = depth.from; block < depth.to; ++block) {
      typename V::Int whole[R][C];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) whole[r][v] = V::start(tile.start + block * R + r);
      for (int64_t i = 0; i < chunks; ++i, code += kChunk, a += 4 * kFields * R) {
        auto fields = [&](auto field) {
          constexpr int kField = decltype(field)::value;
          typename V::Int weight[C];
#pragma GCC unroll 8
          for (int v = 0; v < C; ++v)
            weight[v] = Lookup<V, Bits, Mixed>(pass.tables.get() + strip * kTables, column + v * L)
                            .template operator()<kField>(V::load_codes(code + v * L * 4));
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) whole[r][v] = V::dot(whole[r][v], weight[v], a + (kField * R + r) * 4);
        };
        each<kFields>(fields);
      }
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v)
        scale[v] = V::mul(load_scale<V>(scales, group * kStrip + column + v * L, w.half),
                          V::load(pass.steps.get() + strip * kStrip + column + v * L));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto of_row = V::set(tile.scales[block * R + r]);
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[r][v] = V::fma(V::to_float(whole[r][v]), V::mul(scale[v], of_row), sum[r][v]);
      }
      if (--left == 0) ++group, left = w.per_group;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) V::store(c + r * pitch + column + v * L, sum[r][v]);
  }
}

}  // namespace edgetok
