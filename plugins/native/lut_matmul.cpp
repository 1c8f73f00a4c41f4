// edgetok.native::LutMatMul, a custom operator of ONNX Runtime: x (..., K) times a matrix of looked-up entries -> (..., N).
//
// mode a32 multiplies fp32 activations; a8 rounds them to int8 per row and block first and multiplies integers.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "kernels.h"
#include "operators.h"

namespace edgetok {
namespace {

// The third of a node's inputs and its like, which have to be initializers.
const ort::Value* constant(const Runtime& runtime, const ort::KernelInfo* info, size_t index, const char* name) {
  int is_constant = 0;
  const ort::Value* value = nullptr;
  runtime.call<ort::KernelInfoGetConstantInput_tensor>(info, index, &is_constant, &value);
  if (!is_constant) throw Failure(std::string(name) + " is no initializer");
  return value;
}

bool is_a8(const Runtime& runtime, const ort::KernelInfo* info) {
  std::string absent;
  size_t size = 0;
  if (!runtime.attempt<ort::KernelInfoGetAttribute_string>(absent, info, "mode", static_cast<char*>(nullptr), &size))
    return false;  // as the function of that name, which has no such attribute
  const std::string mode = runtime.text(info, "mode");
  if (mode != "a8" && mode != "a32") throw Failure("mode is '" + mode + "'; a32 and a8 are there");
  return mode == "a8";
}

Description describe(const Runtime& runtime, const ort::KernelInfo* info) {
  const ort::Value* codes = constant(runtime, info, 1, "codes");
  const ort::Value* codebook = constant(runtime, info, 2, "codebook");
  const ort::Value* scales = constant(runtime, info, 3, "scales");
  ort::Type type;
  const auto packed = runtime.shape(codes), levels = runtime.shape(codebook), groups = runtime.shape(scales, &type);
  require(packed.size() == 2 && levels.size() == 3 && groups.size() == 3,
          "codes (N, bytes), codebook (C, P, levels) and scales (N, G, P) have ranks 2, 3 and 3");
  require(type == ort::kFloat || type == ort::kHalf, "scales are fp32 or fp16");
  Description d{runtime.data<const uint8_t>(codes), runtime.data<const float>(codebook),
                runtime.data<const void>(scales), type == ort::kHalf, packed[0], runtime.integer(info, "inner"),
                packed[1], levels[0], levels[1], groups[1], runtime.integer(info, "bits"), 1.0f};
  std::string absent;  // leaves alpha at 1
  runtime.attempt<ort::KernelInfoGetAttribute_float>(absent, info, "alpha", &d.alpha);
  require(d.bits >= 2 && d.bits <= 4, std::to_string(d.bits) + " bits; 2, 3 and 4 are there");
  require(d.outputs > 0 && d.inputs > 0 && d.planes > 0 && d.groups > 0 && d.tables > 0, "an empty weight");
  const bool finite = std::all_of(d.codebook, d.codebook + d.tables * d.planes * levels[2],
                                  [](float level) { return std::isfinite(level); });
  require(finite, "a level of the codebook is not finite");
  require(levels[2] == 1 << d.bits, std::to_string(levels[2]) + " levels for " + std::to_string(d.bits) + " bits");
  require(groups[0] == d.outputs && groups[2] == d.planes, "codes, codebook and scales do not fit each other");
  require(d.outputs % d.tables == 0,
          std::to_string(d.tables) + " codebooks for " + std::to_string(d.outputs) + " outputs");
  const int64_t held = d.bytes * 8 / d.bits;
  require(held % d.groups == 0 && held / d.groups % 8 == 0, "a block of weights is a multiple of 8");
  require(d.inputs <= held && held - d.inputs < held / d.groups, "codes do not hold inner weights");
  return d;
}

// A thread keeps it, as it does its scratch.
Room& room() {
  thread_local const auto own = std::make_unique<Room>();
  return *own;
}

Activations make_room(const Weights& w, int64_t rows) {
  const int64_t values = rows * w.inner(), numbers = rows * w.blocks * 4;
  uint8_t* room = scratch(values + 2 * numbers + rows * w.groups * 4);
  return {reinterpret_cast<int8_t*>(room), reinterpret_cast<float*>(room + values),
          reinterpret_cast<int32_t*>(room + values + numbers), reinterpret_cast<float*>(room + values + 2 * numbers)};
}

class LutMatMul {
 public:
  static constexpr const char* kName = "LutMatMul";
  static constexpr ort::Type kInputs[] = {ort::kFloat, ort::kUint8, ort::kFloat, ort::kAny};
  static constexpr ort::Type kOutputs[] = {ort::kFloat};

  LutMatMul(const Runtime& runtime, const ort::KernelInfo* info)
      : a8_(is_a8(runtime, info)), weights_(describe(runtime, info), a8_) {}

  void compute(const Run& run) const {
    auto shape = run.shape(0);
    require(!shape.empty() && shape.back() == weights_.inputs,
            "x has " + std::to_string(shape.empty() ? 0 : shape.back()) + " columns, the weight " +
                std::to_string(weights_.inputs));
    shape.back() = weights_.outputs;
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    float* y = run.output<float>(0, shape);
    if (rows > 0) multiply(run, run.input<float>(0), rows, y);
  }

 private:
  void multiply(const Run& run, const float* x, int64_t rows, float* y) const {
    const Weights& w = weights_;
    const Kernels& k = kernels_;
    const auto strips = [&](int64_t tile, auto f) {
      const int64_t at_once = up(up(rows, tile), up(rows, kRowsAtOnce / tile * tile)) * tile;  // equal, whole tiles
      const int64_t parts = up(rows, at_once);
      run.parallel(w.strips * parts, [&](int64_t i) {
        const int64_t from = i % parts * at_once;
        f(i / parts, from, std::min(from + at_once, rows));
      });
    };
    if (!a8_)
      return strips(k.rows_a32,
                    [&](int64_t strip, int64_t from, int64_t to) { k.strip_a32(w, strip, x, from, to, room(), y); });
    const Activations all = make_room(w, rows);
    run.parallel((rows + k.rows_a8 - 1) / k.rows_a8, [&](int64_t i) {
      const int64_t row = i * k.rows_a8;
      k.pack_a8(w, x + row * w.inputs, std::min(k.rows_a8, rows - row), all.at(w, row));
    });
    strips(k.rows_a8, [&](int64_t strip, int64_t from, int64_t to) { k.strip_a8(w, strip, all, from, to, room(), y); });
  }

  const Kernels& kernels_ = *choose_kernels();
  bool a8_;
  Weights weights_;
};

// y has x's shape but for the last axis, which is that of the codes' first. Where x has an axis without a size and a
// name, nothing is said: onnxruntime would take the -1 that stands for it as a size.
ort::Status* infer_shape(const ort::CustomOp*, ort::ShapeContext* given) {
  const Runtime& runtime = *registered;
  const ort::ShapeContext* context = given;
  ort::Shape *x = nullptr, *codes = nullptr, *y = nullptr;
  try {
    runtime.call<ort::ShapeInferContext_GetInputTypeShape>(context, size_t(0), &x);
    runtime.call<ort::ShapeInferContext_GetInputTypeShape>(context, size_t(1), &codes);
    auto dims = runtime.dims(x);
    const auto outputs = runtime.dims(codes);
    if (dims.empty() || outputs.empty()) return nullptr;
    std::vector<const char*> names(dims.size(), "");
    runtime.call<ort::GetSymbolicDimensions>(static_cast<const ort::Shape*>(x), names.data(), names.size());
    for (size_t i = 0; i + 1 < dims.size(); ++i)
      if (dims[i] < 0 && !*names[i]) return nullptr;
    dims.back() = outputs[0], names.back() = "";
    runtime.call<ort::CreateTensorTypeAndShapeInfo>(&y);
    runtime.call<ort::SetTensorElementType>(y, ort::kFloat);
    runtime.call<ort::SetDimensions>(y, static_cast<const int64_t*>(dims.data()), dims.size());
    runtime.call<ort::SetSymbolicDimensions>(y, names.data(), names.size());
    runtime.call<ort::ShapeInferContext_SetOutputTypeShape>(context, size_t(0), static_cast<const ort::Shape*>(y));
  } catch (const std::exception&) {
  }
  if (y) runtime.release(y);
  return nullptr;
}

const Added kAdded(kOwn, {operator_of<LutMatMul>(infer_shape)});

}  // namespace
}  // namespace edgetok
