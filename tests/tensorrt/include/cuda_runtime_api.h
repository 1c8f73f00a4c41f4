// The types of CUDA that TensorRT's headers name, where CUDA's own headers are not installed.
#pragma once
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
