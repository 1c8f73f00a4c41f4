// A matrix of looked-up entries, laid out for the kernels.
//
//   w[n, k] = sum over p of  scale[n, k / block, p] * codebook[table(n), p, codes[n, k]]
//
// Outputs are taken in strips of 32; vector lanes run along them, and four neighbouring k of an output share a lane:
// what a dot product of bytes wants. So neither the one vector of decoding nor the many of an image need a horizontal
// sum, a scale is one multiplication for all lanes, and an activation is a broadcast from memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgetok {

constexpr int64_t kStrip = 32;             // outputs of a strip
constexpr int64_t kChunk = 4 * kStrip;     // bytes: of each output of the strip four, 32 / bits codes
constexpr int64_t kTables = 16 * kStrip;   // bytes of a strip's byte tables, 16 for each output
constexpr int64_t kWidestBlock = 128;      // of activations that share a scale; keeps sums within 32 bits

// Uninitialised memory that starts at a cache line, or at a huge page where it fills one.
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;
void* allocate(int64_t bytes);
template <class T>
Array<T> make_array(int64_t size) {
  return Array<T>(static_cast<T*>(allocate(size * static_cast<int64_t>(sizeof(T)))));
}

// A thread's own, good until it asks again. It is kept, so that pages are touched once and not in every layer.
uint8_t* scratch(int64_t bytes);

// One product with a table of int8, its results multiplied by `steps`. A plane of the codebook is one of these if its
// levels are integers times a step (E2M1, INT4, bits): exact. Otherwise its levels in fixed point, 254 a + b, are two,
// and off by 1 / 65000 of the largest. A plane that looks nothing up (an offset) has no tables; `steps` are its levels.
struct Pass {
  int64_t plane;
  Array<int8_t> tables;  // (strips, 4, 8, 16): tables[s, j, q] is that of output 4 q + j of the strip
  Array<float> steps;    // (strips, 32)
};

struct Description {  // the operator's inputs and attributes as they come
  const uint8_t* codes;
  const float* codebook;
  const void* scales;
  bool half;  // scales are fp16
  int64_t outputs, inputs, bytes, tables, planes, groups, bits;
  float alpha;
};

struct Weights {
  int64_t outputs, inputs, strips;
  int64_t bits;      // of a stored code: 2, or 4 (3 is widened)
  int64_t groups, planes;
  int64_t block;     // activations that share a scale: the widest multiple of 8 that divides a block of weights, <= 128
  int64_t padded;    // the same filled up with zeros to whole chunks
  int64_t blocks;    // of activations
  int64_t per_group; // blocks of activations in a block of weights
  float alpha;
  bool half;         // scales are fp16
  bool mixed;        // some strip uses more than one table
  Array<uint8_t> codes;       // (strips, blocks, chunks of a block, 32, 4); a byte holds codes k, k + 4, ...
  Array<uint8_t> scales;      // (strips, planes, groups, 32) fp32 or fp16
  std::vector<float> levels;  // (tables, planes, 16); 2 bits: four times the same four
  std::vector<int32_t> first; // (strips * 32): where an output's levels start
  std::vector<Pass> passes;   // empty: not made, only a8 needs them

  explicit Weights(const Description& given, bool passes);

  int64_t fields() const { return 8 / bits; }                // codes of a byte
  int64_t chunks() const { return padded / (4 * fields()); } // of a block
  int64_t inner() const { return blocks * padded; }          // K as the kernels see it
  const uint8_t* strip_codes(int64_t strip) const { return codes.get() + strip * blocks * chunks() * kChunk; }
  const uint8_t* strip_scales(int64_t strip, int64_t plane) const {
    return scales.get() + (strip * planes + plane) * groups * kStrip * (half ? 2 : 4);
  }
};

}  // namespace edgetok
