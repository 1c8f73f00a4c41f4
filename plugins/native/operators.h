// The operators, one file each: of the domain edgetok.native where a graph is lowered to them, and of the domain edgetok,
// where ONNX Runtime takes them in place of the functions of the same name in a bundle's graph.
#pragma once

#include "runtime.h"
#include "weights.h"

namespace edgetok {

extern const ort::CustomOp kLutMatMul, kBipartiteMatch, kAgglomerativeClusters;
extern const std::vector<ort::CustomOp> kOnTokens;  // MergeTokens and SumTokens, for each type

// That registered the operators: shapes are asked for without one.
extern const Runtime* registered;

inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// (rows, width) -> panels (strips, width, 32): 32 rows side by side, zeros where the last strip is filled up.
inline void lay_panels(const float* from, int64_t rows, int64_t width, float* panels) {
  for (int64_t row = 0; row < up(rows, kStrip) * kStrip; ++row) {
    float* at = panels + row / kStrip * width * kStrip + row % kStrip;
    for (int64_t k = 0; k < width; ++k) at[k * kStrip] = row < rows ? from[row * width + k] : 0;
  }
}

}  // namespace edgetok
