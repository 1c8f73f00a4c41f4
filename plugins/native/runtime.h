// ONNX Runtime as an operator sees it: calls that throw, shapes and data, a loop over its own threads.
#pragma once

#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort_api.h"

namespace edgetok {

class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool right, const std::string& what) {
  if (!right) throw Failure(what);
}

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
  ort::Status* guarded(const char* name, F f) const {
    try {
      f();
      return nullptr;
    } catch (const std::exception& error) {
      const std::string why = std::string(name) + ": " + error.what();
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
  int64_t integer(const ort::KernelInfo* info, const char* attribute) const {
    int64_t value = 0;
    call<ort::KernelInfoGetAttribute_int64>(info, attribute, &value);
    return value;
  }
  float number(const ort::KernelInfo* info, const char* attribute) const {
    float value = 0;
    call<ort::KernelInfoGetAttribute_float>(info, attribute, &value);
    return value;
  }
  std::string text(const ort::KernelInfo* info, const char* attribute) const {
    size_t size = 0;
    call<ort::KernelInfoGetAttribute_string>(info, attribute, static_cast<char*>(nullptr), &size);
    std::string value(size, 0);
    call<ort::KernelInfoGetAttribute_string>(info, attribute, value.data(), &size);
    value.resize(size - 1);  // what ends a string in C
    return value;
  }
  void release(ort::Shape* shape) const { api_->call<ort::ReleaseTensorTypeAndShapeInfo, void>(shape); }

 private:
  const ort::Api* api_;
};

// One run of a node.
class Run {
 public:
  Run(const Runtime& runtime, ort::KernelContext* context) : runtime_(runtime), context_(context) {}

  std::vector<int64_t> shape(size_t index) const { return runtime_.shape(value(index)); }
  template <class T>
  const T* input(size_t index) const {
    return runtime_.data<const T>(value(index));
  }
  template <class T>
  T* output(size_t index, const std::vector<int64_t>& shape) const {
    ort::Value* value = nullptr;
    runtime_.call<ort::KernelContext_GetOutput>(context_, index, shape.data(), shape.size(), &value);
    return runtime_.data<T>(value);
  }
  // f(0) ... f(count - 1), on the threads of ONNX Runtime.
  template <class F>
  void parallel(int64_t count, F f) const {
    if (count == 1) return f(0);
    void (*each)(void*, size_t) = [](void* data, size_t i) { (*static_cast<F*>(data))(static_cast<int64_t>(i)); };
    runtime_.call<ort::KernelContext_ParallelFor>(static_cast<const ort::KernelContext*>(context_), each,
                                                  static_cast<size_t>(count), static_cast<size_t>(count),
                                                  static_cast<void*>(&f));
  }

 private:
  const ort::Value* value(size_t index) const {
    const ort::Value* found = nullptr;
    runtime_.call<ort::KernelContext_GetInput>(static_cast<const ort::KernelContext*>(context_), index, &found);
    return found;
  }

  const Runtime& runtime_;
  ort::KernelContext* context_;
};

// What is to be filled in for an operator: its name, and the types of its inputs and outputs, by
//   static constexpr const char* kName; static constexpr ort::Type kInputs[], kOutputs[];
// a constructor from (const Runtime&, const ort::KernelInfo*); and void compute(const Run&) const.
template <class Operator>
struct Node {
  Runtime runtime;
  Operator made;

  static ort::Status* create(const ort::CustomOp*, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
    const Runtime runtime(api);
    return runtime.guarded(Operator::kName, [&] { *kernel = new Node{runtime, Operator(runtime, info)}; });
  }
  static ort::Status* compute(void* kernel, ort::KernelContext* context) {
    const Node& node = *static_cast<const Node*>(kernel);
    return node.runtime.guarded(Operator::kName, [&] { node.made.compute(Run(node.runtime, context)); });
  }
};

template <class Operator>
constexpr ort::CustomOp operator_of(ort::Status* (*infer_shape)(const ort::CustomOp*, ort::ShapeContext*) = nullptr) {
  return {
      .version = ort::kApiVersion,
      .create_kernel = nullptr,
      .get_name = [](const ort::CustomOp*) { return Operator::kName; },
      .get_provider = [](const ort::CustomOp*) -> const char* { return nullptr; },
      .get_input_type = [](const ort::CustomOp*, size_t i) { return Operator::kInputs[i]; },
      .get_input_count = [](const ort::CustomOp*) { return std::size(Operator::kInputs); },
      .get_output_type = [](const ort::CustomOp*, size_t i) { return Operator::kOutputs[i]; },
      .get_output_count = [](const ort::CustomOp*) { return std::size(Operator::kOutputs); },
      .compute = nullptr,
      .destroy = [](void* kernel) { delete static_cast<Node<Operator>*>(kernel); },
      .get_input_characteristic = [](const ort::CustomOp*, size_t) { return 0; },
      .get_output_characteristic = [](const ort::CustomOp*, size_t) { return 0; },
      .get_input_memory = [](const ort::CustomOp*, size_t) { return 0; },
      .get_variadic_input_min = [](const ort::CustomOp*) { return 1; },
      .get_variadic_input_homogeneity = [](const ort::CustomOp*) { return 0; },
      .get_variadic_output_min = [](const ort::CustomOp*) { return 1; },
      .get_variadic_output_homogeneity = [](const ort::CustomOp*) { return 0; },
      .create_kernel_v2 = Node<Operator>::create,
      .compute_v2 = Node<Operator>::compute,
      .infer_shape = infer_shape,
      .get_start_version = [](const ort::CustomOp*) { return 1; },
      .get_end_version = [](const ort::CustomOp*) { return std::numeric_limits<int>::max(); },
      .get_may_inplace = nullptr,
      .release_may_inplace = nullptr,
      .get_alias_map = nullptr,
      .release_alias_map = nullptr,
  };
}

}  // namespace edgetok
