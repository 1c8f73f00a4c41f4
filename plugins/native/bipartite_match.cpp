// edgetok::BipartiteMatch: for each token of A its most similar token of B, the best matched first.
//
// What plugins/bipartite_match.py computes in five nodes and a matrix (B, A, K). NaN is similar to nothing and comes last.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

// Ascending where the numbers descend; NaN last, and minus zero as zero.
uint64_t key(float number, int64_t index) {
  number += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  const uint32_t rising = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return uint64_t(number == number ? ~rising : 0xffffffffu) << 32 | uint64_t(index);
}

class BipartiteMatch {
 public:
  static constexpr const char* kName = "BipartiteMatch";
  static constexpr ort::Type kInputs[] = {ort::kFloat, ort::kFloat, ort::kFloat, ort::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::kInt64, ort::kInt64, ort::kFloat};

  BipartiteMatch(const Runtime&, const ort::KernelInfo*) {}

  void compute(const Run& run) const {
    const auto a = run.shape(0), b = run.shape(1);
    require(a.size() == 3 && b.size() == 3 && a[0] == b[0] && a[2] == b[2] && (b[1] > 0 || a[1] == 0),
            "a (B, A, d) and b (B, K, d) do not fit each other");
    const int64_t batch = a[0], rows = a[1], columns = b[1], width = a[2], strips = up(columns, kStrip);
    const float *from_a = run.input<float>(0), *from_b = run.input<float>(1);
    const Bias bias_a(run, 2, batch, rows), bias_b(run, 3, batch, columns);
    int64_t* order = run.output<int64_t>(0, {batch, rows});
    int64_t* match = run.output<int64_t>(1, {batch, rows});
    float* ranked = run.output<float>(2, {batch, rows});
    if (batch * rows == 0) return;

    const int64_t panel = strips * width * kStrip, own = panel + strips * kStrip;  // of a sample: b, and its bias
    float* panels = reinterpret_cast<float*>(scratch(4 * batch * own + 20 * batch * rows));
    int64_t* place = reinterpret_cast<int64_t*>(panels + batch * own);  // own is even
    uint64_t* keys = reinterpret_cast<uint64_t*>(place + batch * rows);
    float* best = reinterpret_cast<float*>(keys + batch * rows);
    run.parallel(batch, [&](int64_t i) {
      float* to = panels + i * own;
      lay_panels(from_b + i * columns * width, columns, width, to);
      for (int64_t column = 0; column < strips * kStrip; ++column)
        to[panel + column] = column < columns ? bias_b.at(i, column) : -__builtin_inff();
    });
    const int64_t tasks = up(rows, kMatched), at_once = up(rows, tasks);
    run.parallel(batch * tasks, [&](int64_t task) {
      const int64_t i = task / tasks, row = i * rows + std::min(task % tasks * at_once, rows);
      const int64_t count = std::min(at_once, (i + 1) * rows - row);
      kernels_.match(from_a + row * width, count, width, panels + i * own, panels + i * own + panel, strips,
                     best + row, place + row);
    });
    run.parallel(batch, [&](int64_t i) {
      const int64_t first = i * rows;
      for (int64_t row = 0; row < rows; ++row) {
        best[first + row] += bias_a.at(i, row);
        keys[first + row] = key(best[first + row], row);
      }
      std::sort(keys + first, keys + first + rows);
      for (int64_t rank = first; rank < first + rows; ++rank) {
        const int64_t row = static_cast<int64_t>(keys[rank] & 0xffffffffu);
        order[rank] = row, match[rank] = place[first + row], ranked[rank] = best[first + row];
      }
    });
  }

 private:
  const Kernels& kernels_ = *choose_kernels();
};

const Added kAdded(kFunctions, {operator_of<BipartiteMatch>()});

}  // namespace
}  // namespace edgetok
