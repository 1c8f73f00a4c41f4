// The two products of a tile, written once over the vector types V of an instruction set.
//
// This is compiled once for each set, so no object may share a function with another: V lives in an unnamed namespace,
// and with it all that is made from these templates.
#pragma once

#include "kernels.h"

#define EDGETOK_UNROLL _Pragma("GCC unroll 16")

namespace edgetok {

// R rows by C vectors of sums, in registers.
template <class V, int R, int C>
struct Sums {
  typename V::Float at[R][C];

  Sums(const float* c, int64_t pitch, bool add) {
    EDGETOK_UNROLL for (int r = 0; r < R; ++r)
      EDGETOK_UNROLL for (int v = 0; v < C; ++v) at[r][v] = add ? V::load(c + r * pitch + v * V::kLanes) : V::set(0);
  }
  void store(float* c, int64_t pitch) const {
    EDGETOK_UNROLL for (int r = 0; r < R; ++r)
      EDGETOK_UNROLL for (int v = 0; v < C; ++v) V::store(c + r * pitch + v * V::kLanes, at[r][v]);
  }
};

// c (R, 32) = or += a (R, depth) panel (depth, 32)
template <class V, int R>
void product_a32(const float* a, int64_t row, int64_t step, const float* panel, int64_t depth, float* c, int64_t pitch,
                 bool add) {
  constexpr int C = V::kColumnsA32, L = V::kLanes;
  for (int64_t column = 0; column < kStrip; column += C * L) {
    Sums<V, R, C> sums(c + column, pitch, add);
    const float *b = panel + column, *at[(R + 2) / 3];  // three rows a pointer: what an address can hold
    EDGETOK_UNROLL for (int r = 0; r < R; r += 3) at[r / 3] = a + r * row;
    for (int64_t k = 0; k < depth; ++k, b += kStrip) {
      typename V::Float weight[C];
      EDGETOK_UNROLL for (int v = 0; v < C; ++v) weight[v] = V::load(b + v * L);
      EDGETOK_UNROLL for (int r = 0; r < R; ++r) {
        const auto one = V::set(at[r / 3][r % 3 * row]);
        EDGETOK_UNROLL for (int v = 0; v < C; ++v) sums.at[r][v] = V::fma(one, weight[v], sums.at[r][v]);
      }
      EDGETOK_UNROLL for (int r = 0; r < R; r += 3) at[r / 3] += step;
    }
    sums.store(c + column, pitch);
  }
}

template <class V>
typename V::Float load_scale(const Weights& w, const uint8_t* scales, int64_t index) {
  return w.half ? V::load_half(reinterpret_cast<const uint16_t*>(scales) + index)
                : V::load(reinterpret_cast<const float*>(scales) + index);
}

template <class V, bool Mixed>
typename V::Float level_of(const typename V::Levels& table, const float* levels, const int32_t* first,
                           typename V::Int word, int shift) {
  if constexpr (Mixed) return V::gather(levels, first, word, shift);
  else return V::pick(table, word, shift);
}

// The same for few rows and one plane, decoding in registers; blocks are whole and nothing fills them up.
template <class V, int R, int Bits, bool Mixed>
void product_a32(const Weights& w, int64_t strip, int64_t plane, const float* x, float* c, int64_t pitch, bool add) {
  constexpr int C = V::kColumnsA8, L = V::kLanes, kFields = 8 / Bits;
  constexpr int kParts = R == 1 ? 2 : 1;  // of a block's sum: one after the other is too slow for a single row
  const float* levels = w.levels.data() + plane * 16;
  const int32_t* first = w.first.data() + strip * kStrip;
  const typename V::Levels table(levels + first[0]);
  for (int64_t column = 0; column < kStrip; column += C * L) {
    Sums<V, R, C> sums(c + column, pitch, add);
    const uint8_t* codes = w.strip_codes(strip) + column * 4;
    const float* a = x;
    for (int64_t block = 0; block < w.blocks; ++block) {
      typename V::Float part[kParts][R][C], scale[C];
      EDGETOK_UNROLL for (int i = 0; i < kParts * R * C; ++i) part[i / (R * C)][i / C % R][i % C] = V::set(0);
      for (int64_t i = 0; i < w.chunks(); ++i, codes += kChunk, a += 4 * kFields) {
        typename V::Int word[C];
        EDGETOK_UNROLL for (int v = 0; v < C; ++v) word[v] = V::load_bytes(codes + v * L * 4);
        EDGETOK_UNROLL for (int k = 0; k < 4 * kFields; ++k)
          EDGETOK_UNROLL for (int v = 0; v < C; ++v) {
            const int shift = k % 4 * 8 + k / 4 * Bits;
            const auto level = level_of<V, Mixed>(table, levels, first + column + v * L, word[v], shift);
            EDGETOK_UNROLL for (int r = 0; r < R; ++r) {
              auto& sum = part[k % kParts][r][v];
              sum = V::fma(V::set(a[r * w.inputs + k]), level, sum);
            }
          }
      }
      const int64_t index = block / w.per_group * kStrip + column;
      EDGETOK_UNROLL for (int v = 0; v < C; ++v)
        scale[v] = V::mul(V::set(w.alpha), load_scale<V>(w, w.strip_scales(strip, plane), index + v * L));
      EDGETOK_UNROLL for (int i = 0; i < kParts * R * C; ++i) {
        auto& sum = sums.at[i / C % R][i % C];
        sum = V::fma(part[i / (R * C)][i / C % R][i % C], scale[i % C], sum);
      }
    }
    sums.store(c + column, pitch);
  }
}

// The bytes that the codes of a vector's outputs stand for; Bits = 8: a panel holds them already.
template <class V, int Bits, bool Mixed>
struct Lookup {
  typename V::Int table[Mixed ? 4 : 1];

  Lookup() = default;
  Lookup(const int8_t* tables, int64_t column) {
    if constexpr (Bits < 8)
      for (int j = 0; j < (Mixed ? 4 : 1); ++j) table[j] = V::load_table(tables + (j * kStrip / 4 + column / 4) * 16);
  }
  typename V::Int operator()(typename V::Int codes, int field) const {
    if constexpr (Bits == 8) return codes;
    else if constexpr (Mixed) return V::lookup(table, V::field(codes, field * Bits));
    else return V::lookup(table[0], V::field(codes, field * Bits));
  }
};

struct Depth {  // a range of blocks, and the codes or the panel of the first
  int64_t from, to;
  const uint8_t* bytes;
};

// c (R, 32) = or += the sum over blocks of  (start + a w in integers) * scale of w * step * scale of a
template <class V, int R, int Bits, bool Mixed>
void product_a8(const Weights& w, int64_t strip, const Pass& pass, Depth depth, const Activations& tile, float* c,
                int64_t pitch, bool add) {
  constexpr int C = V::kColumnsA8, L = V::kLanes, kFields = 8 / Bits;
  const int64_t chunks = w.padded / (4 * kFields);
  const uint8_t* scales = w.strip_scales(strip, pass.plane);
  for (int64_t column = 0; column < kStrip; column += C * L) {
    Sums<V, R, C> sums(c + column, pitch, add);
    Lookup<V, Bits, Mixed> lookup[C];
    EDGETOK_UNROLL for (int v = 0; v < C; ++v) lookup[v] = {pass.tables.get() + strip * kTables, column + v * L};
    const int8_t* a = tile.values + depth.from * w.padded * R;
    const uint8_t* bytes = depth.bytes + column * 4;
    int64_t group = depth.from / w.per_group, left = w.per_group - depth.from % w.per_group;
    for (int64_t block = depth.from; block < depth.to; ++block) {
      typename V::Int whole[R][C];
      EDGETOK_UNROLL for (int r = 0; r < R; ++r)
        EDGETOK_UNROLL for (int v = 0; v < C; ++v) whole[r][v] = V::start(tile.starts[block * R + r]);
      for (int64_t i = 0; i < chunks; ++i, bytes += kChunk, a += 4 * kFields * R) {
        typename V::Int codes[C];
        EDGETOK_UNROLL for (int v = 0; v < C; ++v) codes[v] = V::load_bytes(bytes + v * L * 4);
        EDGETOK_UNROLL for (int f = 0; f < kFields; ++f) {
          typename V::Int weight[C];
          EDGETOK_UNROLL for (int v = 0; v < C; ++v) weight[v] = lookup[v](codes[v], f);
          EDGETOK_UNROLL for (int r = 0; r < R; ++r)
            EDGETOK_UNROLL for (int v = 0; v < C; ++v)
              whole[r][v] = V::dot(whole[r][v], weight[v], a + (f * R + r) * 4);
        }
      }
      typename V::Float scale[C];
      EDGETOK_UNROLL for (int v = 0; v < C; ++v)
        scale[v] = V::mul(load_scale<V>(w, scales, group * kStrip + column + v * L),
                          V::load(pass.steps.get() + strip * kStrip + column + v * L));
      EDGETOK_UNROLL for (int r = 0; r < R; ++r) {
        const auto of_row = V::set(tile.scales[block * R + r]);
        EDGETOK_UNROLL for (int v = 0; v < C; ++v)
          sums.at[r][v] = V::fma(V::to_float(whole[r][v]), V::mul(scale[v], of_row), sums.at[r][v]);
      }
      if (--left == 0) ++group, left = w.per_group;
    }
    sums.store(c + column, pitch);
  }
}

}  // namespace edgetok
