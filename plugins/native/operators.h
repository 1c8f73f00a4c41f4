// The operators, one file each: of the domain edgetok.native where a graph is lowered to them, and of the domain edgetok,
// where ONNX Runtime takes them in place of the functions of the same name in a bundle's graph.
#pragma once

#include "runtime.h"

namespace edgetok {

extern const ort::CustomOp kLutMatMul, kBipartiteMatch;
extern const std::vector<ort::CustomOp> kOnTokens;  // MergeTokens and SumTokens, for each type

// That registered the operators: shapes are asked for without one.
extern const Runtime* registered;

}  // namespace edgetok
