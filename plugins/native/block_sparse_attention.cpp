// edgetok::BlockSparseAttention: each block of queries attends to the blocks of keys on its list.
//
// What plugins/block_sparse_attention.py gathers and attends to densely, block by block: what is not listed is not
// attended to, and beside keys and values in panels a thread holds the scores of 64 queries and 512 keys.
#include <algorithm>

#include "attend.h"
#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

// (keys, width) -> (blocks, strips, width, 32): 32 keys side by side, zeros where a block is filled up.
template <class T>
void lay_keys(const T* from, int64_t keys, const Keys& of, int64_t number, float* panel) {
  const int64_t first = number * of.block, end = std::min(keys, first + of.block);
  for (int64_t strip = 0; strip < of.strips; ++strip, panel += of.width * kStrip)
    for (int64_t i = 0; i < kStrip; ++i) {
      const int64_t key = first + strip * kStrip + i;
      const bool there = key < end;
      for (int64_t c = 0; c < of.width; ++c) panel[c * kStrip + i] = there ? float(from[key * of.width + c]) : 0;
    }
}

// (keys, width) -> (blocks, value_strips, block, 32): 32 numbers of each value, zeros where it has fewer.
template <class T>
void lay_values(const T* from, int64_t keys, int64_t width, const Keys& of, int64_t number, float* panel) {
  for (int64_t strip = 0; strip < of.value_strips; ++strip)
    for (int64_t i = 0; i < of.block; ++i, panel += kStrip) {
      const int64_t key = number * of.block + i, column = strip * kStrip;
      const int64_t count = key < keys ? std::min(kStrip, width - column) : 0;
      for (int64_t c = 0; c < count; ++c) panel[c] = float(from[key * width + column + c]);
      std::fill(panel + count, panel + kStrip, 0.0f);
    }
}

// What the shapes say, checked.
struct Sizes {
  int64_t batch, heads, queries, width, groups, keys, values, rows, most, lists, blocks;
  bool own_lists;  // of each sample

  Sizes(const Run& run, int64_t block_q, int64_t block_k) {
    const auto q = run.shape(0), k = run.shape(1), v = run.shape(2), idx = run.shape(3), cnt = run.shape(4);
    require(q.size() == 4 && k.size() == 4 && v.size() == 4 && q[0] == k[0] && q[3] == k[3] && k[1] > 0 &&
                q[1] % k[1] == 0 && v[0] == k[0] && v[1] == k[1] && v[2] == k[2],
            "q (B, h, N, d), k (B, g, K, d) and v (B, g, K, e) do not fit each other");
    batch = q[0], heads = q[1], queries = q[2], width = q[3], groups = k[1], keys = k[2], values = v[3];
    rows = up(queries, block_q), blocks = up(keys, block_k);
    require(idx.size() == 4 && (idx[0] == 1 || idx[0] == batch) && idx[1] > 0 && heads % idx[1] == 0 && idx[2] == rows,
            "block_idx has the shape (1 or B, 1, g or h, N / block_q rounded up, M)");
    require(cnt == std::vector<int64_t>(idx.begin(), idx.end() - 1), "block_cnt has the shape of block_idx without M");
    lists = idx[1], most = idx[3], own_lists = idx[0] > 1;
  }
};

template <class T>
class BlockSparseAttention {
 public:
  static constexpr const char* kName = "BlockSparseAttention";
  static constexpr ort::Type kInputs[] = {kTypeOf<T>, kTypeOf<T>, kTypeOf<T>, ort::kInt32, ort::kInt32, ort::kFloat};
  static constexpr ort::Type kOutputs[] = {kTypeOf<T>};

  BlockSparseAttention(const Runtime& runtime, const ort::KernelInfo* info)
      : block_q_(runtime.integer(info, "block_q")), block_k_(runtime.integer(info, "block_k")),
        window_(runtime.integer(info, "window")), pinned_(runtime.integer(info, "pinned")),
        causal_(runtime.integer(info, "causal") != 0), scale_(runtime.number(info, "scale")) {
    require(block_q_ > 0 && block_k_ > 0, "block_q and block_k are 1 or more");
  }

  void compute(const Run& run) const {
    const Sizes s(run, block_q_, block_k_);
    T* y = run.output<T>(0, {s.batch, s.heads, s.queries, s.values});
    if (s.batch * s.heads * s.queries * s.values == 0) return;
    Keys of{nullptr, nullptr, nullptr, block_k_, s.width, up(block_k_, kStrip), up(s.values, kStrip), causal_, window_,
            pinned_};
    const int64_t key_panel = of.pitch() * s.width, value_panel = of.value_strips * kStrip * block_k_;
    const int64_t per_head = s.blocks * (key_panel + value_panel), biases = s.blocks * of.pitch();
    float* panels = reinterpret_cast<float*>(scratch(4 * (s.batch * s.groups * per_head + s.batch * biases)));
    float* bias = panels + s.batch * s.groups * per_head;
    lay(run, s, of, panels, per_head, bias, biases);

    const int64_t parts = up(block_q_, kMatched), tile = up(block_q_, parts);
    run.parallel(s.batch * s.heads * s.rows * parts, [&](int64_t task) {
      const int64_t row = task / parts % s.rows, head = task / (parts * s.rows) % s.heads;
      const int64_t sample = task / (parts * s.rows * s.heads), first = row * block_q_ + task % parts * tile;
      const int64_t count = std::min({tile, (row + 1) * block_q_ - first, s.queries - first});
      if (count <= 0) return;
      Keys own = of;
      own.keys = panels + (sample * s.groups + head / (s.heads / s.groups)) * per_head;
      own.values = own.keys + s.blocks * key_panel, own.bias = bias + sample * biases;
      attend(run, s, own, sample, head, row, first, count, y);
    });
  }

 private:
  void lay(const Run& run, const Sizes& s, const Keys& of, float* panels, int64_t per_head, float* bias,
           int64_t biases) const {
    const T *k = run.input<T>(1), *v = run.input<T>(2);
    const Bias added(run, 5, s.batch, s.keys);
    const int64_t key_panel = of.pitch() * s.width, value_panel = of.value_strips * kStrip * block_k_;
    run.parallel(s.batch * s.groups * s.blocks, [&](int64_t task) {
      const int64_t head = task / s.blocks, number = task % s.blocks;
      float* to = panels + head * per_head;
      lay_keys(k + head * s.keys * s.width, s.keys, of, number, to + number * key_panel);
      lay_values(v + head * s.keys * s.values, s.keys, s.values, of, number,
                 to + s.blocks * key_panel + number * value_panel);
    });
    for (int64_t sample = 0; sample < s.batch; ++sample)
      for (int64_t i = 0; i < biases; ++i) {
        const int64_t inside = i % of.pitch(), key = i / of.pitch() * block_k_ + inside;
        bias[sample * biases + i] = inside < block_k_ && key < s.keys ? added.at(sample, key) : -__builtin_inff();
      }
  }

  // Queries `first` to `first + count` of one head, which share a list.
  void attend(const Run& run, const Sizes& s, const Keys& of, int64_t sample, int64_t head, int64_t row, int64_t first,
              int64_t count, T* y) const {
    const int64_t wide = of.value_strips * kStrip;
    float *q = room(count * s.width + count * wide + of.room() + s.most), *out = q + count * s.width;
    float* work = out + count * wide;
    int32_t* list = reinterpret_cast<int32_t*>(work + of.room());
    const T* from = run.input<T>(0) + ((sample * s.heads + head) * s.queries + first) * s.width;
    for (int64_t i = 0; i < count * s.width; ++i) q[i] = float(from[i]) * scale_;

    const int64_t at = ((s.own_lists ? sample : 0) * s.lists + head / (s.heads / s.lists)) * s.rows + row;
    const int32_t* idx = run.input<int32_t>(3) + at * s.most;
    const int64_t listed = std::min<int64_t>(run.input<int32_t>(4)[at], s.most), place = first + s.keys - s.queries;
    int64_t seen = 0;
    for (int64_t i = 0; i < listed; ++i)
      if (idx[i] >= 0 && idx[i] < s.blocks && !of.bars_all(place, count, idx[i])) list[seen++] = idx[i];
    kernels_.attend(q, count, place, of, list, seen, work, out);
    T* to = y + ((sample * s.heads + head) * s.queries + first) * s.values;
    for (int64_t r = 0; r < count; ++r)
      for (int64_t c = 0; c < s.values; ++c) to[r * s.values + c] = rounded<T>(out[r * wide + c]);
  }

  const Kernels& kernels_ = *choose_kernels();
  int64_t block_q_, block_k_, window_, pinned_;
  bool causal_;
  float scale_;
};

const Added kAdded(kFunctions, {operator_of<BlockSparseAttention<float>>(), operator_of<BlockSparseAttention<Half>>(),
                                operator_of<BlockSparseAttention<BFloat16>>()});

}  // namespace
}  // namespace edgetok
