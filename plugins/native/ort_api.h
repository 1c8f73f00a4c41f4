// The part of ONNX Runtime's C API that a custom operator needs, declared here because its Python wheel ships no headers.
//
// OrtApi is a table of function pointers that is only ever appended to, so an index stays valid in every later version.
// The newest function used came with version 17 of the table (onnxruntime 1.17).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kApiVersion = 17;

struct Status;
struct Value;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct Domain;
struct Shape;         // OrtTensorTypeAndShapeInfo
struct ShapeContext;  // OrtShapeInferContext

enum Type : int { kAny = 0, kFloat = 1, kUint8 = 2, kHalf = 10 };
enum Code : int { kFail = 1, kInvalidArgument = 2 };

struct Api {
  void* const* functions;  // not a member of OrtApi: the table itself

  template <int index, class... Args>
  Status* call(Args... args) const {
    return reinterpret_cast<Status* (*)(Args...)>(functions[index])(args...);
  }
};

// Index of each function in OrtApi.
enum Function : int {
  kCreateStatus = 0,
  kGetErrorMessage = 2,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kCreateTensorTypeAndShapeInfo = 57,
  kSetTensorElementType = 58,
  kSetDimensions = 59,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetSymbolicDimensions = 63,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelInfoGetAttributeString = 87,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelInfoGetConstantInputTensor = 249,
  kShapeInferContextGetInputTypeShape = 268,
  kShapeInferContextSetOutputTypeShape = 270,
  kSetSymbolicDimensions = 271,
  kKernelContextParallelFor = 274,
};

struct ApiBase {
  void* const* (*get_api)(uint32_t version);  // null where the runtime is older than the version
  const char* (*get_version)();
};

// OrtCustomOp, as of version 17 of the table; ONNX Runtime reads `version` before what was appended later.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, void* const* api, const KernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_provider)(const CustomOp*);  // null: the CPU
  Type (*get_input_type)(const CustomOp*, size_t index);
  size_t (*get_input_count)(const CustomOp*);
  Type (*get_output_type)(const CustomOp*, size_t index);
  size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy)(void* kernel);
  int (*get_input_characteristic)(const CustomOp*, size_t index);  // 0: required
  int (*get_output_characteristic)(const CustomOp*, size_t index);
  int (*get_input_memory)(const CustomOp*, size_t index);  // 0: the provider's own
  int (*get_variadic_input_min)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_min)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, void* const* api, const KernelInfo*, void** kernel);
  Status* (*compute_v2)(void* kernel, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, ShapeContext*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
  size_t (*get_may_inplace)(int** input, int** output);
  void (*release_may_inplace)(int* input, int* output);
  size_t (*get_alias_map)(int** input, int** output);
  void (*release_alias_map)(int* input, int* output);
};

}  // namespace ort
