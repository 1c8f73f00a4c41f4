// The part of ONNX Runtime's C API that a custom operator needs; its Python wheel ships no headers.
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

enum Type : int { kAny = 0, kFloat = 1, kUint8 = 2, kInt32 = 6, kInt64 = 7, kHalf = 10, kBFloat16 = 16 };
enum Code : int { kInvalidArgument = 2 };

// The index of each function in OrtApi, under its name there.
enum Function : int {
  CreateStatus = 0,
  GetErrorMessage = 2,
  CreateCustomOpDomain = 26,
  CustomOpDomain_Add = 27,
  AddCustomOpDomain = 28,
  GetTensorMutableData = 51,
  CreateTensorTypeAndShapeInfo = 57,
  SetTensorElementType = 58,
  SetDimensions = 59,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetSymbolicDimensions = 63,
  GetTensorTypeAndShape = 65,
  KernelInfoGetAttribute_float = 85,
  KernelInfoGetAttribute_int64 = 86,
  KernelInfoGetAttribute_string = 87,
  KernelContext_GetInput = 90,
  KernelContext_GetOutput = 91,
  ReleaseStatus = 93,
  ReleaseTensorTypeAndShapeInfo = 99,
  KernelInfoGetConstantInput_tensor = 249,
  ShapeInferContext_GetInputTypeShape = 268,
  ShapeInferContext_SetOutputTypeShape = 270,
  SetSymbolicDimensions = 271,
  KernelContext_ParallelFor = 274,
};

// OrtApi: the table.
struct Api {
  void* functions[KernelContext_ParallelFor + 1];

  template <Function function, class Result = Status*, class... Args>
  Result call(Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(functions[function])(args...);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);  // null where the runtime is older than the version
  const char* (*get_version)();
};

// OrtCustomOp, as of version 17 of the table; ONNX Runtime reads `version` before what was appended later.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api* api, const KernelInfo*);
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
  Status* (*create_kernel_v2)(const CustomOp*, const Api* api, const KernelInfo*, void** kernel);
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
