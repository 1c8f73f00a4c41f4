// edgetok::TokenSparseAttention: each query, or each few queries in a row, attend to the tokens on their list.
//
// As plugins/token_sparse_attention.py: listed keys and values are gathered, once for all queries and heads that share
// list and keys, by the thread that attends to them. So beyond inputs and outputs a thread holds one list's.
#include "attend.h"
#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

// Queries of a list, heads counted, from which gathered keys are turned into panels. Measured with 256 keys of 64 on
// AVX-512: rows take 0.47 of the time of panels with 1 query, 0.94 with 4, 1.18 with 8.
constexpr int64_t kPanelled = 5;
constexpr int64_t kVector = 16;  // numbers of the longest vector

// What the shapes say, checked.
struct Sizes {
  int64_t batch, heads, queries, width, groups, keys, values, rows, lists, most;
  int64_t shared;  // heads in a row that share list and keys
  bool own_lists;  // of each sample

  Sizes(const Run& run, int64_t block_q) {
    const auto q = run.shape(0), k = run.shape(1), v = run.shape(2), idx = run.shape(3), cnt = run.shape(4);
    require(q.size() == 4 && k.size() == 4 && v.size() == 4 && q[0] == k[0] && q[3] == k[3] && k[1] > 0 &&
                q[1] % k[1] == 0 && v[0] == k[0] && v[1] == k[1] && v[2] == k[2],
            "q (B, h, N, d), k (B, g, K, d) and v (B, g, K, e) do not fit each other");
    batch = q[0], heads = q[1], queries = q[2], width = q[3], groups = k[1], keys = k[2], values = v[3];
    rows = up(queries, block_q);
    require(idx.size() == 4 && (idx[0] == 1 || idx[0] == batch) && idx[1] > 0 && heads % idx[1] == 0 && idx[2] == rows,
            "token_idx has the shape (1 or B, 1, g or h, N / block_q rounded up, M)");
    require(cnt == std::vector<int64_t>(idx.begin(), idx.end() - 1), "token_cnt has the shape of token_idx without M");
    lists = idx[1], most = idx[3], own_lists = idx[0] > 1;
    const int64_t more = std::max(lists, groups);
    shared = more % std::min(lists, groups) ? 1 : heads / more;
  }
};

// Gathered keys and values of one list, laid out as Keys says, in blocks of 32.
struct Gathered {
  int64_t blocks, width, value_strips;
  float *keys, *values, *bias;
  int32_t *places, *list;

  static int64_t floats(int64_t blocks, int64_t width, int64_t value_strips) {
    return blocks * (kStrip * (width + value_strips * kStrip + 2) + 1);
  }
  Gathered(float* room, int64_t blocks, int64_t width, int64_t value_strips)
      : blocks(blocks), width(width), value_strips(value_strips), keys(room), values(keys + blocks * kStrip * width),
        bias(values + blocks * value_strips * kStrip * kStrip),
        places(reinterpret_cast<int32_t*>(bias + blocks * kStrip)), list(places + blocks * kStrip) {}

  // A key (d) and a value (e) at a place of the panels.
  template <class T>
  void lay(int64_t i, const T* key, int64_t d, const T* value, int64_t e, bool as_rows) const {
    const int64_t block = i / kStrip, inside = i % kStrip;
    float* to = keys + block * kStrip * width + (as_rows ? inside * width : inside);
    if (as_rows) {
      for (int64_t c = 0; c < d; ++c) to[c] = float(key[c]);
      std::fill(to + d, to + width, 0.0f);
    } else {
      for (int64_t c = 0; c < d; ++c) to[c * kStrip] = float(key[c]);
    }
    to = values + (block * value_strips * kStrip + inside) * kStrip;
    for (int64_t first = 0; first < e; first += kStrip, to += kStrip * kStrip) {
      const int64_t count = std::min(kStrip, e - first);
      for (int64_t c = 0; c < count; ++c) to[c] = float(value[first + c]);
      std::fill(to + count, to + kStrip, 0.0f);
    }
  }
  // Nothing there.
  void clear(int64_t i, bool as_rows) const {
    const int64_t block = i / kStrip, inside = i % kStrip, step = as_rows ? 1 : kStrip;
    float* to = keys + block * kStrip * width + (as_rows ? inside * width : inside);
    for (int64_t c = 0; c < width; ++c) to[c * step] = 0;
    to = values + (block * value_strips * kStrip + inside) * kStrip;
    for (int64_t strip = 0; strip < value_strips; ++strip, to += kStrip * kStrip) std::fill(to, to + kStrip, 0.0f);
  }
};

template <class T>
class TokenSparseAttention {
 public:
  static constexpr const char* kName = "TokenSparseAttention";
  static constexpr ort::Type kInputs[] = {kTypeOf<T>, kTypeOf<T>, kTypeOf<T>, ort::kInt32, ort::kInt32, ort::kFloat};
  static constexpr ort::Type kOutputs[] = {kTypeOf<T>};

  TokenSparseAttention(const Runtime& runtime, const ort::KernelInfo* info)
      : block_q_(runtime.integer(info, "block_q")), causal_(runtime.integer(info, "causal") != 0),
        scale_(runtime.number(info, "scale")) {
    require(block_q_ > 0 && block_q_ < 1ll << 32, "block_q is a number from 1 to 2^32");
  }

  void compute(const Run& run) const {
    const Sizes s(run, block_q_);
    T* y = run.output<T>(0, {s.batch, s.heads, s.queries, s.values});
    if (s.batch * s.heads * s.queries * s.values == 0) return;
    const Bias bias(run, 5, s.batch, s.keys);
    const int64_t packs = s.heads / s.shared;
    run.parallel(s.batch * packs * s.rows, [&](int64_t task) {
      const int64_t sample = task / s.rows / packs, head = task / s.rows % packs * s.shared;
      attend(run, s, bias, sample, head, task % s.rows, y);
    });
  }

 private:
  // The queries of a list, of the heads from `head` on that share it.
  void attend(const Run& run, const Sizes& s, const Bias& bias, int64_t sample, int64_t head, int64_t row, T* y) const {
    const int64_t first = row * block_q_, place = first + s.keys - s.queries;
    const int64_t count = std::min(block_q_, s.queries - first);
    const bool as_rows = count * s.shared < kPanelled;
    const int64_t width = as_rows ? up(s.width, kVector) * kVector : s.width, strips = up(s.values, kStrip);
    Keys of{nullptr, nullptr, nullptr, kStrip, width, 1, strips, causal_, -1, 0, as_rows};

    const int64_t at = ((s.own_lists ? sample : 0) * s.lists + head / (s.heads / s.lists)) * s.rows + row;
    const int32_t* idx = run.input<int32_t>(3) + at * s.most;
    const int64_t listed = std::clamp<int64_t>(run.input<int32_t>(4)[at], 0, s.most), tile = std::min(count, kMatched);
    const int64_t wide = strips * kStrip, blocks = up(listed, kStrip);
    float* q = room(tile * (width + wide) + of.room() + Gathered::floats(blocks, width, strips));
    float *out = q + tile * width, *work = out + tile * wide;
    const Gathered to(work + of.room(), blocks, width, strips);
    const int64_t group = sample * s.groups + head / (s.heads / s.groups);
    const int64_t last = causal_ ? std::min(s.keys, place + count) : s.keys;  // what no query sees is not gathered
    const int64_t seen = gather(run, s, bias, sample, group, {idx, idx + listed}, last, as_rows, to);
    of.keys = to.keys, of.values = to.values, of.bias = to.bias;
    if (count > 1) of.places = to.places;
    else of.causal = false;

    for (int64_t own = head; own < head + s.shared; ++own)
      for (int64_t start = 0; start < count; start += kMatched) {
        const int64_t rows = std::min(kMatched, count - start);
        const int64_t from = (sample * s.heads + own) * s.queries + first + start;
        lay_queries(run.input<T>(0) + from * s.width, rows, s.width, width, q);
        kernels_.attend(q, rows, place + start, of, to.list, up(seen, kStrip), work, out);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < s.values; ++c) y[(from + r) * s.values + c] = rounded<T>(out[r * wide + c]);
      }
  }

  void lay_queries(const T* from, int64_t rows, int64_t width, int64_t pitch, float* q) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < pitch; ++c) q[r * pitch + c] = c < width ? float(from[r * width + c]) * scale_ : 0;
  }

  // The listed keys before `end`, their values and biases; returns how many there are.
  int64_t gather(const Run& run, const Sizes& s, const Bias& bias, int64_t sample, int64_t group,
                 std::pair<const int32_t*, const int32_t*> listed, int64_t end, bool as_rows,
                 const Gathered& to) const {
    const T *k = run.input<T>(1) + group * s.keys * s.width, *v = run.input<T>(2) + group * s.keys * s.values;
    int64_t seen = 0;
    for (const int32_t* i = listed.first; i < listed.second; ++i) {
      if (*i < 0 || *i >= end) continue;
      to.places[seen] = *i, to.bias[seen] = bias.at(sample, *i);
      to.lay(seen++, k + *i * s.width, s.width, v + *i * s.values, s.values, as_rows);
    }
    for (int64_t i = seen; i < up(seen, kStrip) * kStrip; ++i) {
      to.places[i] = 0, to.bias[i] = -__builtin_inff();
      to.clear(i, as_rows);
    }
    for (int64_t i = 0; i < up(seen, kStrip); ++i) to.list[i] = static_cast<int32_t>(i);
    return seen;
  }

  const Kernels& kernels_ = *choose_kernels();
  int64_t block_q_;
  bool causal_;
  float scale_;
};

const Added kAdded(kFunctions, {operator_of<TokenSparseAttention<float>>(), operator_of<TokenSparseAttention<Half>>(),
                                operator_of<TokenSparseAttention<BFloat16>>()});

}  // namespace
}  // namespace edgetok
