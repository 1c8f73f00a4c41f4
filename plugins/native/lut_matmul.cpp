// edgetok.native::LutMatMul, a custom operator of ONNX Runtime: x (..., K) times a matrix of looked-up entries -> (..., N).
//
// mode a32 multiplies fp32 activations; a8 rounds them to int8 per row and block first and multiplies integers.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <limits>
#include <string_view>

#include "kernels.h"
#include "ort_api.h"

#ifndef EDGETOK_SOURCES
#define EDGETOK_SOURCES "unknown"
#endif

namespace edgetok {
namespace {

// Read from the file without loading it: whether these sources made it.
__attribute__((used)) const char kMark[] = "edgetok sources sha256 " EDGETOK_SOURCES;

// The widest instruction set here, or the widest below the one that EDGETOK_NATIVE_ISA names.
const Kernels* choose_kernels() {
  const char* cap = std::getenv("EDGETOK_NATIVE_ISA");
  const std::string_view most = cap ? cap : "";
  bool allowed = most.empty();
  const std::pair<const char*, const Kernels*> sets[] = {
      {"avx512", kernels_avx512()}, {"avxvnni", kernels_avxvnni()}, {"avx2", kernels_avx2()}, {"neon", kernels_neon()}};
  for (const auto& [name, kernels] : sets) {
    allowed |= most == name;
    if (allowed && kernels) return kernels;
  }
  return kernels_portable();
}

class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Runtime {
 public:
  explicit Runtime(const ort::Api* api) : api_(api) {}

  // Whether it succeeded; if not, why.
  template <ort::Function function, class... Args>
  bool attempt(std::string& why, Args... args) const {
    ort::Status* status = api_->call<function>(args...);
    if (!status) return true;
    why = api_->call<ort::GetErrorMessage, const char*>(static_cast<const ort::Status*>(status));
    api_->call<ort::ReleaseStatus, void>(status);
    return false;
  }
  template <ort::Function function, class... Args>
  void call(Args... args) const {
    if (std::string why; !attempt<function>(why, args...)) throw Failure(why);
  }
  // Run what may throw; nothing may be thrown into ONNX Runtime.
  template <class F>
  ort::Status* guarded(F f) const {
    try {
      f();
      return nullptr;
    } catch (const std::exception& error) {
      const std::string why = std::string("LutMatMul: ") + error.what();
      return api_->call<ort::CreateStatus>(ort::kInvalidArgument, why.c_str());
    }
  }
  std::vector<int64_t> shape(const ort::Value* value, ort::Type* type = nullptr) const {
    ort::Shape* info = nullptr;
    call<ort::GetTensorTypeAndShape>(value, &info);
    if (type) call<ort::GetTensorElementType>(static_cast<const ort::Shape*>(info), type);
    const auto result = dims(info);
    release(info);
    return result;
  }
  std::vector<int64_t> dims(const ort::Shape* info) const {
    size_t rank = 0;
    call<ort::GetDimensionsCount>(info, &rank);
    std::vector<int64_t> result(rank);
    call<ort::GetDimensions>(info, result.data(), rank);
    return result;
  }
  template <class T>
  T* data(const ort::Value* value) const {
    void* data = nullptr;
    call<ort::GetTensorMutableData>(value, &data);
    return static_cast<T*>(data);
  }
  void release(ort::Shape* shape) const { api_->call<ort::ReleaseTensorTypeAndShapeInfo, void>(shape); }

 private:
  const ort::Api* api_;
};

struct Kernel {
  Runtime runtime;
  const Kernels* kernels;
  bool a8;
  Weights weights;
};

// The third of a node's inputs and its like, which have to be initializers.
const ort::Value* constant(const Runtime& runtime, const ort::KernelInfo* info, size_t index, const char* name) {
  int is_constant = 0;
  const ort::Value* value = nullptr;
  runtime.call<ort::KernelInfoGetConstantInput_tensor>(info, index, &is_constant, &value);
  if (!is_constant) throw Failure(std::string(name) + " is no initializer");
  return value;
}

int64_t integer(const Runtime& runtime, const ort::KernelInfo* info, const char* name) {
  int64_t value = 0;
  runtime.call<ort::KernelInfoGetAttribute_int64>(info, name, &value);
  return value;
}

bool is_a8(const Runtime& runtime, const ort::KernelInfo* info) {
  std::string absent;
  size_t size = 0;
  if (!runtime.attempt<ort::KernelInfoGetAttribute_string>(absent, info, "mode", static_cast<char*>(nullptr), &size))
    return false;  // as the function of that name, which has no such attribute
  std::string mode(size, 0);
  runtime.call<ort::KernelInfoGetAttribute_string>(info, "mode", mode.data(), &size);
  mode.resize(size - 1);  // what ends a string in C
  if (mode != "a8" && mode != "a32") throw Failure("mode is '" + mode + "'; a32 and a8 are there");
  return mode == "a8";
}

void require(bool right, const std::string& what) {
  if (!right) throw Failure(what);
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
                runtime.data<const void>(scales), type == ort::kHalf, packed[0], integer(runtime, info, "inner"),
                packed[1], levels[0], levels[1], groups[1], integer(runtime, info, "bits"), 1.0f};
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

ort::Status* create(const ort::CustomOp*, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
  const Runtime runtime(api);
  return runtime.guarded([&] {
    const bool a8 = is_a8(runtime, info);
    *kernel = new Kernel{runtime, choose_kernels(), a8, Weights(describe(runtime, info), a8)};
  });
}

template <class F>
void parallel(const Runtime& runtime, const ort::KernelContext* context, int64_t count, F f) {
  if (count == 1) return f(0);
  void (*each)(void*, size_t) = [](void* data, size_t i) { (*static_cast<F*>(data))(static_cast<int64_t>(i)); };
  runtime.call<ort::KernelContext_ParallelFor>(context, each, static_cast<size_t>(count), static_cast<size_t>(count),
                                               static_cast<void*>(&f));
}

// A thread keeps its rooms, so that pages are touched once and not in every layer.
Room& room() {
  thread_local const auto own = std::make_unique<Room>();
  return *own;
}

uint8_t* scratch(int64_t bytes) {
  thread_local Array<uint8_t> room;
  thread_local int64_t size = 0;
  if (bytes > size) room = make_array<uint8_t>(size = bytes);
  return room.get();
}

Activations make_room(const Weights& w, int64_t rows) {
  const int64_t values = rows * w.inner(), numbers = rows * w.blocks * 4;
  uint8_t* room = scratch(values + 2 * numbers + rows * w.groups * 4);
  return {reinterpret_cast<int8_t*>(room), reinterpret_cast<float*>(room + values),
          reinterpret_cast<int32_t*>(room + values + numbers), reinterpret_cast<float*>(room + values + 2 * numbers)};
}

void multiply(const Kernel& kernel, const ort::KernelContext* context, const float* x, int64_t rows, float* y) {
  const Weights& w = kernel.weights;
  const Kernels& k = *kernel.kernels;
  const auto strips = [&](int64_t tile, auto f) {
    const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
    const int64_t at_once = up(up(rows, tile), up(rows, kRowsAtOnce / tile * tile)) * tile;  // equal parts, whole tiles
    const int64_t parts = up(rows, at_once);
    parallel(kernel.runtime, context, w.strips * parts, [&](int64_t i) {
      const int64_t from = i % parts * at_once;
      f(i / parts, from, std::min(from + at_once, rows));
    });
  };
  if (!kernel.a8)
    return strips(k.rows_a32,
                  [&](int64_t strip, int64_t from, int64_t to) { k.strip_a32(w, strip, x, from, to, room(), y); });
  const Activations all = make_room(w, rows);
  parallel(kernel.runtime, context, (rows + k.rows_a8 - 1) / k.rows_a8, [&](int64_t i) {
    const int64_t row = i * k.rows_a8;
    k.pack_a8(w, x + row * w.inputs, std::min(k.rows_a8, rows - row), all.at(w, row));
  });
  strips(k.rows_a8, [&](int64_t strip, int64_t from, int64_t to) { k.strip_a8(w, strip, all, from, to, room(), y); });
}

ort::Status* compute(void* data, ort::KernelContext* context) {
  const Kernel& kernel = *static_cast<Kernel*>(data);
  const Runtime& runtime = kernel.runtime;
  return runtime.guarded([&] {
    const ort::Value* x = nullptr;
    runtime.call<ort::KernelContext_GetInput>(static_cast<const ort::KernelContext*>(context), size_t(0), &x);
    auto shape = runtime.shape(x);
    require(!shape.empty() && shape.back() == kernel.weights.inputs,
            "x has " + std::to_string(shape.empty() ? 0 : shape.back()) + " columns, the weight " +
                std::to_string(kernel.weights.inputs));
    shape.back() = kernel.weights.outputs;
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    ort::Value* y = nullptr;
    const int64_t* dims = shape.data();
    runtime.call<ort::KernelContext_GetOutput>(context, size_t(0), dims, shape.size(), &y);
    if (rows > 0) multiply(kernel, context, runtime.data<const float>(x), rows, runtime.data<float>(y));
  });
}

// Of the runtime that registered the operator: shapes are asked for without one.
const Runtime* registered = nullptr;

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

const ort::CustomOp kOperator = {
    .version = ort::kApiVersion,
    .create_kernel = nullptr,
    .get_name = [](const ort::CustomOp*) { return "LutMatMul"; },
    .get_provider = [](const ort::CustomOp*) -> const char* { return nullptr; },
    .get_input_type = [](const ort::CustomOp*, size_t i) {
      return i == 1 ? ort::kUint8 : i == 3 ? ort::kAny : ort::kFloat; },
    .get_input_count = [](const ort::CustomOp*) { return size_t(4); },
    .get_output_type = [](const ort::CustomOp*, size_t) { return ort::kFloat; },
    .get_output_count = [](const ort::CustomOp*) { return size_t(1); },
    .compute = nullptr,
    .destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); },
    .get_input_characteristic = [](const ort::CustomOp*, size_t) { return 0; },
    .get_output_characteristic = [](const ort::CustomOp*, size_t) { return 0; },
    .get_input_memory = [](const ort::CustomOp*, size_t) { return 0; },
    .get_variadic_input_min = [](const ort::CustomOp*) { return 1; },
    .get_variadic_input_homogeneity = [](const ort::CustomOp*) { return 0; },
    .get_variadic_output_min = [](const ort::CustomOp*) { return 1; },
    .get_variadic_output_homogeneity = [](const ort::CustomOp*) { return 0; },
    .create_kernel_v2 = create,
    .compute_v2 = compute,
    .infer_shape = infer_shape,
    .get_start_version = [](const ort::CustomOp*) { return 1; },
    .get_end_version = [](const ort::CustomOp*) { return std::numeric_limits<int>::max(); },
    .get_may_inplace = nullptr,
    .release_may_inplace = nullptr,
    .get_alias_map = nullptr,
    .release_alias_map = nullptr,
};

}  // namespace
}  // namespace edgetok

#define EDGETOK_EXPORT extern "C" __attribute__((visibility("default")))

EDGETOK_EXPORT const char* edgetok_isa() { return edgetok::choose_kernels()->name; }

EDGETOK_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::kApiVersion);
  if (!api) return nullptr;  // older than 1.17: the session then knows no LutMatMul, and says so
  static const edgetok::Runtime runtime(api);
  edgetok::registered = &runtime;
  return runtime.guarded([&] {
    static ort::Domain* domain = nullptr;  // must outlive every session, so it is never released
    if (!domain) {
      runtime.call<ort::CreateCustomOpDomain>("edgetok.native", &domain);
      runtime.call<ort::CustomOpDomain_Add>(domain, &edgetok::kOperator);
    }
    runtime.call<ort::AddCustomOpDomain>(options, domain);
  });
}
