// A strip of outputs for many rows: codes are decoded into a panel that stays in the cache and serves all rows.
#pragma once

#include <cstring>

#include "pack.h"
#include "product.h"

namespace edgetok {

// Codes -> panel (k, 32) fp32: sum over planes of scale * level, times alpha. What fills up a block is written over by
// the next one.
template <class V, int Bits, bool Mixed>
void decode_a32(const Weights& w, int64_t strip, int64_t from, int64_t to, float* panel) {
  constexpr int L = V::kLanes, kFields = 8 / Bits;
  const uint8_t* codes = w.strip_codes(strip) + from * w.chunks() * kChunk;
  const int32_t* first = w.first.data() + strip * kStrip;
  for (int64_t block = from; block < to; ++block, codes += w.chunks() * kChunk, panel += w.block * kStrip)
    for (int64_t column = 0; column < kStrip; column += L)
      for (int64_t p = 0; p < w.planes; ++p) {
        const int64_t index = block / w.per_group * kStrip + column;
        const auto scale = V::mul(V::set(w.alpha), load_scale<V>(w, w.strip_scales(strip, p), index));
        const float* levels = w.levels.data() + p * 16;
        const typename V::Levels table(levels + first[0]);
        for (int64_t i = 0; i < w.chunks(); ++i) {
          const auto word = V::load_bytes(codes + i * kChunk + column * 4);
          EDGETOK_UNROLL for (int shift = 0; shift < 32; shift += Bits) {
            float* at = panel + ((i * kFields + shift % 8 / Bits) * 4 + shift / 8) * kStrip + column;
            const auto level = level_of<V, Mixed>(table, levels, first + column, word, shift);
            V::store(at, p ? V::fma(scale, level, V::load(at)) : V::mul(scale, level));
          }
        }
      }
}

// Codes -> panel (k / 4, 32, 4) of bytes
template <class V, int Bits, bool Mixed>
void decode_a8(const Weights& w, int64_t strip, const Pass& pass, Depth depth, uint8_t* panel) {
  constexpr int L = V::kLanes, kFields = 8 / Bits;
  for (int64_t column = 0; column < kStrip; column += L) {
    const Lookup<V, Bits, Mixed> lookup(pass.tables.get() + strip * kTables, column);
    const uint8_t* codes = depth.bytes + column * 4;
    uint8_t* to = panel + column * 4;
    for (int64_t i = 0; i < (depth.to - depth.from) * w.chunks(); ++i, codes += kChunk, to += kFields * kChunk) {
      const auto word = V::load_bytes(codes);
      EDGETOK_UNROLL for (int f = 0; f < kFields; ++f) V::store_bytes(to + f * kChunk, lookup(word, f));
    }
  }
}

// Call f with the number of rows as a constant.
template <int Most, class F>
void with_rows(int64_t rows, F f) {
  if constexpr (Most > 1)
    if (rows < Most) return with_rows<Most - 1>(rows, f);
  f.template operator()<Most>();
}

// Call f with the bits of a code and whether a strip mixes tables as constants.
template <class F>
void with_format(const Weights& w, F f) {
  if (w.bits == 2) return w.mixed ? f.template operator()<2, true>() : f.template operator()<2, false>();
  return w.mixed ? f.template operator()<4, true>() : f.template operator()<4, false>();
}

// Where the products of a strip and some rows are put: y itself, or a buffer where the strip has fewer than 32 outputs.
struct Target {
  float *y, *buffer, *c;
  int64_t width, outputs, from, to, pitch;

  Target(const Weights& w, int64_t strip, int64_t from, int64_t to, Room& room, float* all)
      : y(all + from * w.outputs + strip * kStrip), buffer(room.products), c(y), width(w.outputs - strip * kStrip),
        outputs(w.outputs), from(from), to(to), pitch(outputs) {
    if (width < kStrip) c = buffer, pitch = kStrip;
  }
  float* at(int64_t row) { return c + (row - from) * pitch; }
  void finish() {
    if (c == buffer)
      for (int64_t r = 0; r < to - from; ++r) std::memcpy(y + r * outputs, buffer + r * kStrip, width * sizeof(float));
  }
};

template <class V>
void strip_a32(const Weights& w, int64_t strip, const float* x, int64_t from, int64_t to, Room& room,
               float* y) {
  constexpr int kFused = V::kRowsA8 < 4 ? V::kRowsA8 : 4;  // rows that decode in registers
  Target target(w, strip, from, to, room, y);
  if (to - from <= kFused && w.inputs == w.inner()) {
    for (int64_t plane = 0; plane < w.planes; ++plane)
      with_format(w, [&]<int Bits, bool Mixed> {
        with_rows<kFused>(to - from, [&]<int R> {
          product_a32<V, R, Bits, Mixed>(w, strip, plane, x + from * w.inputs, target.c, target.pitch, plane > 0);
        });
      });
    return target.finish();
  }
  float* panel = reinterpret_cast<float*>(room.panel);
  const int64_t step = (to - from < 32 ? kPanel / 4 : kPanel) / (w.block * kStrip * 4);
  for (int64_t block = 0; block < w.blocks; block += step) {
    const int64_t k = block * w.block, depth = least((block + step) * w.block, w.inputs) - k;
    if (depth <= 0) break;
    with_format(w, [&]<int Bits, bool Mixed> {
      decode_a32<V, Bits, Mixed>(w, strip, block, least(block + step, w.blocks), panel);
    });
    for (int64_t row = from; row < to; row += V::kRowsA32)
      with_rows<V::kRowsA32>(to - row, [&]<int R> {
        product_a32<V, R>(x + row * w.inputs + k, w.inputs, 1, panel, depth, target.at(row), target.pitch, block > 0);
      });
  }
  target.finish();
}

// A pass that looks nothing up adds  sums (rows, groups) * scales (groups, 32) * steps: a product in fp32.
template <class V>
void add_constant(const Weights& w, int64_t strip, const Pass& pass, const Activations& all, Room& room, Target& target,
                  bool add) {
  float* panel = reinterpret_cast<float*>(room.panel);
  constexpr int64_t kStep = kPanel / (4 * kStrip);
  for (int64_t group = 0; group < w.groups; group += kStep, add = true) {
    const int64_t end = least(group + kStep, w.groups);
    for (int64_t i = group * kStrip; i < end * kStrip; i += V::kLanes)
      V::store(panel + i - group * kStrip, V::mul(load_scale<V>(w, w.strip_scales(strip, pass.plane), i),
                                                  V::load(pass.steps.get() + strip * kStrip + i % kStrip)));
    for (int64_t row = target.from; row < target.to; row += V::kRowsA8)
      with_rows<V::kRowsA8>(target.to - row, [&]<int R> {
        product_a32<V, R>(all.at(w, row).sums + group * R, 1, R, panel, end - group, target.at(row), target.pitch, add);
      });
  }
}

template <class V>
void strip_a8(const Weights& w, int64_t strip, const Activations& all, int64_t from, int64_t to, Room& room,
              float* y) {
  constexpr int kFused = V::kRowsA8 < 4 ? V::kRowsA8 : 4;  // rows, in one tile, that decode in registers
  Target target(w, strip, from, to, room, y);
  bool add = false;
  const int64_t step = kPanel / (w.padded * kStrip);
  for (int64_t block = 0; block < w.blocks; block += step) {
    const int64_t end = least(block + step, w.blocks);
    const Depth codes{block, end, w.strip_codes(strip) + block * w.chunks() * kChunk};
    for (const Pass& pass : w.passes) {
      if (!pass.tables) continue;
      with_format(w, [&]<int Bits, bool Mixed> {
        if (to - from <= kFused)
          return with_rows<kFused>(to - from, [&]<int R> {
            product_a8<V, R, Bits, Mixed>(w, strip, pass, codes, all.at(w, from), target.c, target.pitch, add);
          });
        decode_a8<V, Bits, Mixed>(w, strip, pass, codes, room.panel);
        for (int64_t row = from; row < to; row += V::kRowsA8)
          with_rows<V::kRowsA8>(to - row, [&]<int R> {
            product_a8<V, R, 8, false>(w, strip, pass, {block, end, room.panel}, all.at(w, row), target.at(row),
                                       target.pitch, add);
          });
      });
      add = true;
    }
  }
  for (const Pass& pass : w.passes)
    if (!pass.tables) add_constant<V>(w, strip, pass, all, room, target, add), add = true;
  target.finish();
}

}  // namespace edgetok
