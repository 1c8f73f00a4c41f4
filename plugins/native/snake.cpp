// edgetok::Snake: x + sin(alpha x)^2 inverse, an alpha and an inverse for each channel.
//
// What plugins/snake.py computes in five passes over memory, in one.
#include <algorithm>

#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

constexpr int64_t kTask = 16384;  // numbers: of one task

template <class T>
class Snake {
 public:
  static constexpr const char* kName = "Snake";
  static constexpr ort::Type kInputs[] = {kTypeOf<T>, kTypeOf<T>, kTypeOf<T>};
  static constexpr ort::Type kOutputs[] = {kTypeOf<T>};

  Snake(const Runtime&, const ort::KernelInfo*) {}

  void compute(const Run& run) const {
    const auto shape = run.shape(0);
    require(shape.size() == 3, "x is (B, C, N)");
    const std::vector<int64_t> of_channels{1, shape[1], 1};
    require(run.shape(1) == of_channels && run.shape(2) == of_channels, "alpha and inverse are (1, C, 1) for x (B, C, N)");
    const T *x = run.input<T>(0), *alpha = run.input<T>(1), *inverse = run.input<T>(2);
    T* y = run.output<T>(0, shape);
    const int64_t channels = shape[1], samples = shape[2], rows = shape[0] * channels;
    if (rows * samples == 0) return;
    const int64_t at_once = std::max<int64_t>(1, kTask / samples), pieces = up(samples, kTask);
    run.parallel(up(rows, at_once) * pieces, [&](int64_t task) {
      const int64_t first = task / pieces * at_once, from = task % pieces * kTask;
      for (int64_t row = first; row < std::min(first + at_once, rows); ++row)
        for (int64_t i = from; i < std::min(from + kTask, samples); i += kSnakes) {
          const int64_t count = std::min(kSnakes, std::min(from + kTask, samples) - i);
          const T* own = x + row * samples + i;
          T* to = y + row * samples + i;
          const float a = alpha[row % channels], height = inverse[row % channels];
          if constexpr (std::is_same_v<T, float>) kernels_.snake(own, count, a, height, to);
          else {
            alignas(64) float wide[kSnakes], made[kSnakes];
            for (int64_t k = 0; k < count; ++k) wide[k] = own[k];
            kernels_.snake(wide, count, a, height, made);
            for (int64_t k = 0; k < count; ++k) to[k] = T::of(made[k]);
          }
        }
    });
  }

 private:
  const Kernels& kernels_ = *choose_kernels();
};

const Added kAdded(kFunctions, {operator_of<Snake<float>>(), operator_of<Snake<Half>>(), operator_of<Snake<BFloat16>>()});

}  // namespace
}  // namespace edgetok
