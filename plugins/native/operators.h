// What an operator's file needs. Each file adds its own to those that the library registers.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "number.h"
#include "runtime.h"
#include "weights.h"

namespace edgetok {

// The domain that a graph is lowered to, and the one where ONNX Runtime takes them in place of the functions of the same
// name in a bundle's graph.
enum DomainOf { kOwn, kFunctions };

// At the end of a file: `const Added kAdded(kFunctions, {operator_of<MergeTokens<float>>()});`
struct Added {
  Added(DomainOf domain, std::initializer_list<ort::CustomOp> operators);
};

// That registered the operators: shapes are asked for without one.
extern const Runtime* registered;

// ONNX Runtime's name of a type.
template <class T>
constexpr ort::Type kTypeOf = ort::kFloat;
template <>
constexpr ort::Type kTypeOf<Half> = ort::kHalf;
template <>
constexpr ort::Type kTypeOf<BFloat16> = ort::kBFloat16;

template <class T>
T rounded(float number) {
  if constexpr (std::is_same_v<T, float>) return number;
  else return T::of(number);
}

// A thread keeps it, beside its scratch.
inline float* room(int64_t floats) {
  thread_local Array<float> own;
  thread_local int64_t size = 0;
  if (floats > size) own = make_array<float>(size = floats);
  return own.get();
}

inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What is added for each token, (1 or B, 1 or N).
class Bias {
 public:
  Bias(const Run& run, size_t index, int64_t batch, int64_t tokens) : data_(run.input<float>(index)) {
    const auto shape = run.shape(index);
    require(shape.size() == 2 && (shape[0] == 1 || shape[0] == batch) && (shape[1] == 1 || shape[1] == tokens),
            "a bias has the shape (1 or B, 1 or the number of tokens)");
    step = shape[1] == 1 ? 0 : 1, sample_ = shape[0] == 1 ? 0 : shape[1];
  }
  const float* row(int64_t sample) const { return data_ + sample * sample_; }
  float at(int64_t sample, int64_t token) const { return row(sample)[token * step]; }

  int64_t step;  // from a token's number to the next one's

 private:
  const float* data_;
  int64_t sample_;
};

// (rows, width) -> a panel (width, 32): the 32 rows from `first` on, side by side; zeros where there are fewer.
inline void lay_panel(const float* from, int64_t rows, int64_t width, int64_t first, float* panel) {
  const int64_t count = std::min(kStrip, rows - first);
  from += first * width;
  for (int64_t k = 0; k < width; ++k, panel += kStrip) {
    for (int64_t i = 0; i < count; ++i) panel[i] = from[i * width + k];
    for (int64_t i = count; i < kStrip; ++i) panel[i] = 0;
  }
}

// (rows, width) -> panels (strips, width, 32).
inline void lay_panels(const float* from, int64_t rows, int64_t width, float* panels) {
  for (int64_t first = 0; first < rows; first += kStrip) lay_panel(from, rows, width, first, panels + first * width);
}

}  // namespace edgetok
