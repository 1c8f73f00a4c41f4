// Attention of a block of queries to listed blocks of keys, written once over the vector types V of an instruction set.
#pragma once

#include <cstring>

#include "strip.h"

namespace edgetok {

// So that no instruction set's copy of a function is another's.
#define EDGETOK_INLINE __attribute__((always_inline))

constexpr int64_t kAtOnce = 512;  // keys whose scores are there at once, for kMatched queries: 128 KiB

// A sample's keys and values of one head, laid out by blocks; a block has `strips` of 32 keys, the last one filled up.
struct Keys {
  const float* keys;    // (blocks, strips, width, 32), or as rows (blocks, strips, 32, width)
  const float* values;  // (blocks, value_strips, block, 32)
  const float* bias;    // (blocks, strips, 32), -infinity where a block is filled up
  int64_t block, width, strips, value_strips;
  bool causal;
  int64_t window, pinned;  // a window below 0 bars nothing
  bool as_rows = false;    // the width is whole vectors then
  const int32_t* places = nullptr;  // (blocks, block) where the keys of a block stand that were gathered

  EDGETOK_INLINE int64_t pitch() const { return strips * kStrip; }
  EDGETOK_INLINE int64_t at_once() const { return pitch() < kAtOnce ? kAtOnce / pitch() : 1; }  // blocks
  // Numbers of what `attend` works in.
  EDGETOK_INLINE int64_t room() const { return kMatched * (at_once() * pitch() + value_strips * kStrip + 2); }
  EDGETOK_INLINE int64_t place(int64_t key) const { return places ? places[key] : key; }
  EDGETOK_INLINE bool bars(int64_t row, int64_t column) const {
    const int64_t distance = column - row;
    return (causal && distance > 0) ||
           (window >= 0 && (distance > window || -distance > window) && row >= pinned && column >= pinned);
  }
  // Of queries at `row` and behind it, whether none sees a block, and whether some do not see all of it.
  EDGETOK_INLINE bool bars_all(int64_t row, int64_t rows, int64_t number) const {
    const int64_t first = number * block, last = first + block - 1, end = row + rows - 1;
    if (causal && first > end) return true;
    return window >= 0 && (first - end > window || row - last > window) && row >= pinned && first >= pinned;
  }
  EDGETOK_INLINE bool bars_some(int64_t row, int64_t rows, int64_t number) const {
    if (places) return causal;
    const int64_t first = number * block, last = first + block - 1, end = row + rows - 1;
    return (causal && last > row) || (window >= 0 && (last - row > window || end - first > window));
  }
};

// e^x of x <= 0, to 2e-7 of itself; 0 from -87 on, and NaN stays NaN.
template <class V>
inline float exponential(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // the nearest integer
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.98756912e-4f;
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345205e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666657e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const float scaled = p * __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, shifted) << 23) + 0x3f800000u);
  return x < -87.0f ? 0.0f : scaled;
}

// Scores (count) -> e^(score - the largest), in place. The largest and the sum are carried from what was there before;
// returns what that is to be multiplied with.
template <class V>
float normalise(float* scores, int64_t count, float& largest, float& sum) {
  alignas(64) float lanes[kStrip];
  for (int64_t lane = 0; lane < kStrip; ++lane) lanes[lane] = largest;
  for (int64_t i = 0; i < count; i += kStrip)
    for (int64_t lane = 0; lane < kStrip; ++lane)
      lanes[lane] = scores[i + lane] > lanes[lane] ? scores[i + lane] : lanes[lane];
  float top = lanes[0];
  for (int64_t lane = 1; lane < kStrip; ++lane) top = lanes[lane] > top ? lanes[lane] : top;
  const float base = top < -1e30f ? 0.0f : top;  // nothing is seen yet
  for (int64_t lane = 0; lane < kStrip; ++lane) lanes[lane] = 0;
  for (int64_t i = 0; i < count; i += kStrip)
    for (int64_t lane = 0; lane < kStrip; ++lane) {
      const float weight = exponential<V>(scores[i + lane] - base);
      scores[i + lane] = weight;
      lanes[lane] += weight;
    }
  const float factor = largest < -1e30f ? 0.0f : exponential<V>(largest - base);
  float added = 0;
  for (int64_t lane = 0; lane < kStrip; ++lane) added += lanes[lane];
  sum = sum * factor + added;
  largest = top;
  return factor;
}

// c (rows, 32) = or += a (rows, depth) panel (depth, 32)
template <class V>
void product_of(const float* a, int64_t rows, int64_t width, const float* panel, int64_t depth, float* c,
                int64_t pitch) {
  for (int64_t row = 0; row < rows; row += V::kRowsA32)
    with_rows<V::kRowsA32>(rows - row, [&]<int R> {
      product_a32<V, R>(a + row * width, width, 1, panel, depth, c + row * pitch, pitch, true);
    });
}

// c (rows, 32) += a (rows, width) keys (32, width): for so few rows that keys are not worth to be turned into panels.
template <class V>
void products_of(const float* a, int64_t rows, int64_t width, const float* keys, float* c, int64_t pitch) {
  alignas(64) float lanes[V::kLanes];
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < kStrip; ++i) {
      auto sum = V::set(0);
      for (int64_t k = 0; k < width; k += V::kLanes)
        sum = V::fma(V::load(a + row * width + k), V::load(keys + i * width + k), sum);
      V::store(lanes, sum);
      EDGETOK_UNROLL for (int half = V::kLanes / 2; half; half /= 2)
        EDGETOK_UNROLL for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      c[row * pitch + i] += lanes[0];
    }
}

// For at most kMatched queries (rows, width), times the scale, the first of which stands at the place `first`: their
// values (rows, value_strips * 32), zeros where a query sees no key. Softmax goes along (Milakov and Gimelshein,
// https://arxiv.org/abs/1805.02867, algorithm 3), some blocks at a time.
template <class V>
void attend(const float* q, int64_t rows, int64_t first, const Keys& of, const int32_t* list, int64_t count,
            float* room, float* out) {
  const int64_t pitch = of.pitch(), at_once = of.at_once(), across = at_once * pitch, wide = of.value_strips * kStrip;
  float *scores = room, *largest = scores + kMatched * across, *sum = largest + kMatched;
  for (int64_t row = 0; row < rows; ++row) largest[row] = -__builtin_inff(), sum[row] = 0;
  std::memset(out, 0, static_cast<size_t>(4 * rows * wide));
  for (int64_t at = 0; at < count; at += at_once) {
    const int64_t blocks = least(at_once, count - at);
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t number = list[at + i];
      float* own = scores + i * pitch;
      for (int64_t row = 0; row < rows; ++row)
        std::memcpy(own + row * across, of.bias + number * pitch, static_cast<size_t>(4 * pitch));
      for (int64_t strip = 0; strip < of.strips; ++strip) {
        const float* keys = of.keys + (number * of.strips + strip) * of.width * kStrip;
        if (of.as_rows) products_of<V>(q, rows, of.width, keys, own + strip * kStrip, across);
        else product_of<V>(q, rows, of.width, keys, of.width, own + strip * kStrip, across);
      }
      if (of.bars_some(first, rows, number))
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t column = 0; column < of.block; ++column)
            if (of.bars(first + row, of.place(number * of.block + column))) own[row * across + column] = -__builtin_inff();
    }
    for (int64_t row = 0; row < rows; ++row) {
      const float factor = normalise<V>(scores + row * across, blocks * pitch, largest[row], sum[row]);
      if (factor != 1.0f)
        for (int64_t i = row * wide; i < (row + 1) * wide; ++i) out[i] *= factor;
    }
    for (int64_t i = 0; i < blocks; ++i)
      for (int64_t strip = 0; strip < of.value_strips; ++strip)
        product_of<V>(scores + i * pitch, rows, across,
                      of.values + (list[at + i] * of.value_strips + strip) * of.block * kStrip, of.block,
                      out + strip * kStrip, wide);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float scale = sum[row] == 0 ? 0.0f : 1 / sum[row];
    for (int64_t i = row * wide; i < (row + 1) * wide; ++i) out[i] *= scale;
  }
}

}  // namespace edgetok
