// The two closest clusters are merged until a fixed number is left, written once over the vector types V.
//
// One merge after the other, as the algorithm is defined: each cluster knows the nearest other one, so that a merge costs
// one pass over that list, two rows of distances, and a row for each cluster whose nearest is gone.
#pragma once

#include "match.h"

namespace edgetok {

// What clustering works in, for one sample; `pitch` is the number of tokens, filled up to whole strips.
struct Clusters {
  int64_t tokens, pitch;
  float *distances;  // (tokens, pitch), infinite on the diagonal
  float *size;       // (pitch)
  float *gone;       // (pitch) what is added to a distance to a cluster: infinite where it is part of another
  float *least;      // (pitch) the distance to the nearest,
  int32_t *nearest;  // (pitch) and which: the first of equal ones

  static int64_t floats(int64_t tokens, int64_t pitch) { return tokens * pitch + 4 * pitch; }

  Clusters(float* room, int64_t tokens, int64_t pitch)
      : tokens(tokens), pitch(pitch), distances(room), size(room + tokens * pitch), gone(size + pitch),
        least(gone + pitch), nearest(reinterpret_cast<int32_t*>(least + pitch)) {}
  // Inlined, so that no instruction set's copy of it is another's.
  __attribute__((always_inline)) float* row(int64_t i) const { return distances + i * pitch; }
};

// Products of all tokens with each other, from their rows and the same in panels.
template <class V>
void products(const float* x, int64_t width, const float* panels, const Clusters& c) {
  constexpr int kRows = V::kRowsA32;
  for (int64_t row = 0; row < c.tokens; row += kRows)
    with_rows<kRows>(least(kRows, c.tokens - row), [&]<int R> {
      for (int64_t column = 0; column < c.pitch; column += kStrip)
        product_a32<V, R>(x + row * width, width, 1, panels + column * width, width, c.row(row) + column, c.pitch, false);
    });
}

// The first of the smallest of a row's numbers, where none are gone.
template <class V>
void find(const float* numbers, const float* gone, int64_t count, float& smallest, int32_t& place) {
  alignas(64) float lowest[kStrip];
  alignas(64) int32_t where[kStrip];
  for (int64_t i = 0; i < kStrip; ++i) lowest[i] = __builtin_inff(), where[i] = 0;
  for (int32_t from = 0; from < count; from += kStrip)
    for (int32_t i = 0; i < kStrip; ++i) {
      const float number = numbers[from + i] + gone[from + i];
      const bool better = number < lowest[i];
      lowest[i] = better ? number : lowest[i];
      where[i] = better ? from + i : where[i];
    }
  int64_t first = 0;
  for (int64_t i = 1; i < kStrip; ++i)
    if (lowest[i] < lowest[first] || (lowest[i] == lowest[first] && where[i] < where[first])) first = i;
  smallest = lowest[first], place = where[first];
}

// The distances of cluster `low` once `high` is part of it.
template <class V>
void join(const Clusters& c, int64_t low, int64_t high, Linkage linkage) {
  float *a = c.row(low), *b = c.row(high);
  const float share = c.size[high] / (c.size[low] + c.size[high]);
  for (int64_t i = 0; i < c.pitch; ++i) {
    const float average = a[i] + share * (b[i] - a[i]);
    const float closer = a[i] < b[i] ? a[i] : b[i], farther = a[i] < b[i] ? b[i] : a[i];
    const float now = linkage == Linkage::kSingle ? closer : linkage == Linkage::kComplete ? farther : average;
    a[i] = now < __builtin_inff() ? now : __builtin_inff();
  }
  a[low] = __builtin_inff();
  c.size[low] += c.size[high];
  c.gone[high] = c.least[high] = __builtin_inff();
}

// Merge until `count` are left, from products to root (tokens): the lowest token of each one's cluster. What is not finite
// is near to nothing; where only that is left, more clusters are.
template <class V>
void cluster(const float* x, int64_t width, const float* panels, const float* padding, int64_t step, const Clusters& c,
             Linkage linkage, int64_t count, int64_t* root) {
  constexpr float kInfinite = __builtin_inff();
  products<V>(x, width, panels, c);
  for (int64_t i = 0; i < c.pitch; ++i) c.size[i] = 1, c.least[i] = c.gone[i] = i < c.tokens ? 0 : kInfinite;
  for (int64_t i = 0; i < c.tokens; ++i) {
    float* row = c.row(i);
    const float left = padding[i * step];
    for (int64_t j = 0; j < c.tokens; ++j) {
      const float right = padding[j * step], apart = 100.0f * (left + right) - 204.0f * left * right;
      const float distance = (1.0f + apart) - row[j];
      row[j] = distance < kInfinite ? distance : kInfinite;
    }
    row[i] = kInfinite;
    root[i] = i;
    find<V>(row, c.gone, c.pitch, c.least[i], c.nearest[i]);
  }
  for (int64_t merges = c.tokens - count; merges > 0; --merges) {
    float height;
    int32_t low;
    find<V>(c.least, c.gone, c.pitch, height, low);
    if (!(height < kInfinite)) return;
    const int64_t high = c.nearest[low];
    join<V>(c, low, high, linkage);
    for (int64_t i = 0; i < c.tokens; ++i) {
      if (root[i] == high) root[i] = low;
      if (i == low || c.gone[i] == kInfinite) continue;
      const float now = c.row(i)[low] = c.row(low)[i];
      if (c.nearest[i] == low || c.nearest[i] == high) find<V>(c.row(i), c.gone, c.pitch, c.least[i], c.nearest[i]);
      else if (now < c.least[i] || (now == c.least[i] && low < c.nearest[i])) c.least[i] = now, c.nearest[i] = low;
    }
    find<V>(c.row(low), c.gone, c.pitch, c.least[low], c.nearest[low]);
  }
}

}  // namespace edgetok
