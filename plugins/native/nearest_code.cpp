// edgetok::NearestCode: for every token the row of a codebook with the largest product plus bias.
//
// What plugins/nearest_code.py computes in blocks of codes.
#include <algorithm>

#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

constexpr int64_t kPanels = 1 << 20;  // numbers of the codebook that are laid at once: 4 MB

class NearestCode {
 public:
  static constexpr const char* kName = "NearestCode";
  static constexpr ort::Type kInputs[] = {ort::kFloat, ort::kFloat, ort::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::kInt64};

  NearestCode(const Runtime&, const ort::KernelInfo*) {}

  void compute(const Run& run) const {
    const auto x = run.shape(0), codebook = run.shape(1), bias = run.shape(2);
    require(x.size() == 3 && codebook.size() == 2 && x[2] == codebook[1] && codebook[0] > 0 && bias.size() == 1 &&
                bias[0] == codebook[0],
            "x (B, N, d), codebook (K, d) and bias (K) do not fit each other");
    const int64_t rows = x[0] * x[1], width = x[2], codes = codebook[0], strips = up(codes, kStrip);
    const float *from = run.input<float>(0), *book = run.input<float>(1), *added = run.input<float>(2);
    int64_t* index = run.output<int64_t>(0, {x[0], x[1]});
    if (rows == 0) return;

    const int64_t at_once = std::clamp<int64_t>(kPanels / std::max<int64_t>(width, 1) / kStrip, 1, strips);
    const int64_t padded = at_once * kStrip;
    float* panels = reinterpret_cast<float*>(scratch(4 * (padded * (width + 1) + 4 * rows)));
    float *biases = panels + padded * width, *best = biases + padded, *score = best + rows;
    int64_t* place = reinterpret_cast<int64_t*>(score + rows);
    std::fill_n(best, rows, -__builtin_inff());
    std::fill_n(index, rows, 0);
    for (int64_t first = 0; first < codes; first += padded) {
      const int64_t count = std::min(padded, codes - first), used = up(count, kStrip);
      const float* from_code = book + first * width;
      run.parallel(used, [&](int64_t i) { lay_panel(from_code, count, width, i * kStrip, panels + i * kStrip * width); });
      for (int64_t i = 0; i < used * kStrip; ++i) biases[i] = i < count ? added[first + i] : -__builtin_inff();
      run.parallel(up(rows, kMatched), [&](int64_t task) {
        const int64_t row = task * kMatched, end = std::min(row + kMatched, rows);
        kernels_.match(from + row * width, end - row, width, panels, biases, used, score + row, place + row);
        for (int64_t i = row; i < end; ++i)
          if (score[i] > best[i]) best[i] = score[i], index[i] = first + place[i];
      });
    }
  }

 private:
  const Kernels& kernels_ = *choose_kernels();
};

const Added kAdded(kFunctions, {operator_of<NearestCode>()});

}  // namespace
}  // namespace edgetok
