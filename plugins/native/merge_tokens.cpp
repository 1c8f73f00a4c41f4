// edgetok.native::MergeTokens and SumTokens: the tokens that go are averaged into, or added to, those that stay.
//
// What plugins/merge_tokens.py and plugins/sum_tokens.py compute by products with one-hot columns, in one pass over the
// tokens: a row that stays is read, what goes into it is added, in the order in which it goes, and it is written.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "operators.h"
#include "weights.h"

namespace edgetok {
namespace {

constexpr int64_t kTask = 16384;    // numbers: of the rows of one task
constexpr int64_t kColumns = 512;   // of a row that are summed at once, in the L1 cache
constexpr float kSmallest = 1e-4f;  // divides the zeros of merged padding; real sizes are 1 and more

template <class T>
void put(T* to, const float* sums, int64_t count) {
  if constexpr (std::is_same_v<T, float>) std::memcpy(to, sums, 4 * count);
  else
    for (int64_t c = 0; c < count; ++c) to[c] = T::of(sums[c]);
}

// The inputs but the first, x (B, N, C): weight (B, N, 1), order (B, M), destination (B, M - kept), kept (1,).
struct Tokens {
  const float* weight;
  const int64_t *order, *destination;
  int64_t batch, tokens, width, places, kept, gone;

  explicit Tokens(const Run& run)
      : weight(run.input<float>(1)), order(run.input<int64_t>(2)),
        destination(run.input<int64_t>(3)) {
    const auto shape = run.shape(0), of_order = run.shape(2), of_destination = run.shape(3);
    require(shape.size() == 3 && run.shape(1) == std::vector<int64_t>({shape[0], shape[1], 1}),
            "x (B, N, C) and its weights (B, N, 1) do not fit each other");
    require(run.shape(4) == std::vector<int64_t>{1}, "kept is one number, of the shape (1,)");
    batch = shape[0], tokens = shape[1], width = shape[2], kept = run.input<int64_t>(4)[0];
    require(of_order.size() == 2 && of_order[0] == batch && kept >= 0 && kept <= of_order[1], "order is (B, kept or more)");
    places = of_order[1], gone = places - kept;
    require(of_destination == std::vector<int64_t>({batch, gone}), "destination is (B, those of order that go)");
    within(order, batch * places, tokens, "order");
    within(destination, batch * gone, kept, "destination");
  }
  static void within(const int64_t* numbers, int64_t count, int64_t end, const char* name) {
    for (int64_t i = 0; i < count; ++i)
      if (numbers[i] < 0 || numbers[i] >= end)
        throw Failure(std::string(name) + " holds " + std::to_string(numbers[i]) + "; there are " + std::to_string(end));
  }
};

// Write every row that stays: its own token and what goes into it, each with its weight times `share(the sum of weights)`,
// a number that `share` may also store.
template <class T, class Share>
void combine(const Run& run, const Tokens& t, T* y, Share share) {
  const int64_t own = t.kept + 1 + t.gone;  // of a sample: where each row's list of places starts, and the lists
  int32_t* lists = reinterpret_cast<int32_t*>(scratch(4 * t.batch * own));
  for (int64_t i = 0; i < t.batch; ++i) {
    int32_t* starts = lists + i * own;
    const int64_t* into = t.destination + i * t.gone;
    std::fill(starts, starts + t.kept + 1, 0);
    for (int64_t j = 0; j < t.gone; ++j) ++starts[into[j]];
    for (int64_t row = 1; row <= t.kept; ++row) starts[row] += starts[row - 1];
    for (int64_t j = t.gone - 1; j >= 0; --j) starts[t.kept + 1 + --starts[into[j]]] = static_cast<int32_t>(t.kept + j);
  }
  const int64_t rows = std::max<int64_t>(1, kTask / std::max<int64_t>(1, t.width)), tasks = (t.kept + rows - 1) / rows;
  if (t.batch * tasks == 0) return;
  const T* x = run.input<T>(0);
  run.parallel(t.batch * tasks, [&](int64_t task) {
    const int64_t i = task / tasks, from = task % tasks * rows, first = i * t.tokens, *order = t.order + i * t.places;
    const int32_t *starts = lists + i * own, *list = starts + t.kept + 1;
    for (int64_t row = from; row < std::min(from + rows, t.kept); ++row) {
      const int32_t *begin = list + starts[row], *end = list + starts[row + 1];
      const int64_t stays = first + order[row];
      float sum = t.weight[stays];
      for (const int32_t* place = begin; place < end; ++place) sum += t.weight[first + order[*place]];
      const float scale = share(i * t.kept + row, sum);
      T* to = y + (i * t.kept + row) * t.width;
      if (begin == end && t.weight[stays] * scale == 1) {  // most rows: nothing goes into them
        std::memcpy(to, x + stays * t.width, t.width * static_cast<int64_t>(sizeof(T)));
        continue;
      }
      for (int64_t column = 0; column < t.width; column += kColumns) {
        const int64_t count = std::min(kColumns, t.width - column);
        alignas(64) float sums[kColumns];
        const auto add = [&](int64_t token, bool more) {
          const T* at = x + token * t.width + column;
          const float weight = t.weight[token] * scale;
          if (more) for (int64_t c = 0; c < count; ++c) sums[c] += weight * at[c];
          else for (int64_t c = 0; c < count; ++c) sums[c] = weight * at[c];
        };
        add(stays, false);
        for (const int32_t* place = begin; place < end; ++place) add(first + order[*place], true);
        put(to + column, sums, count);
      }
    }
  });
}

template <class T>
class MergeTokens {
 public:
  static constexpr const char* kName = "MergeTokens";
  static constexpr ort::Type kInputs[] = {kTypeOf<T>, ort::kFloat, ort::kInt64, ort::kInt64, ort::kInt64};
  static constexpr ort::Type kOutputs[] = {kTypeOf<T>, ort::kFloat};

  MergeTokens(const Runtime&, const ort::KernelInfo*) {}

  void compute(const Run& run) const {
    const Tokens t(run);
    T* merged = run.output<T>(0, {t.batch, t.kept, t.width});
    float* sizes = run.output<float>(1, {t.batch, t.kept, 1});
    combine(run, t, merged, [&](int64_t row, float size) { return sizes[row] = size, 1 / std::max(size, kSmallest); });
  }
};

template <class T>
class SumTokens {
 public:
  static constexpr const char* kName = "SumTokens";
  static constexpr ort::Type kInputs[] = {kTypeOf<T>, ort::kFloat, ort::kInt64, ort::kInt64, ort::kInt64};
  static constexpr ort::Type kOutputs[] = {kTypeOf<T>};

  SumTokens(const Runtime&, const ort::KernelInfo*) {}

  void compute(const Run& run) const {
    const Tokens t(run);
    combine(run, t, run.output<T>(0, {t.batch, t.kept, t.width}), [](int64_t, float) { return 1.0f; });
  }
};

const Added kAdded(kFunctions, {
    operator_of<MergeTokens<float>>(), operator_of<MergeTokens<Half>>(), operator_of<MergeTokens<BFloat16>>(),
    operator_of<SumTokens<float>>(), operator_of<SumTokens<Half>>(), operator_of<SumTokens<BFloat16>>(),
});

}  // namespace
}  // namespace edgetok
