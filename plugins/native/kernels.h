// What an instruction set supplies: kernel_<set>.cpp.
#pragma once

#include "weights.h"

namespace edgetok {

constexpr int64_t kRowsAtOnce = 512;  // of one call of a strip: each decodes its codes anew

constexpr int64_t kMatched = 64;  // rows of one call of a match

constexpr int64_t kSnakes = 512;  // numbers of one call of a snake

constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows of x rounded to int8. The rows of a tile (Kernels::rows_a8) lie next to each other: it is read as one stream.
struct Activations {
  int8_t* values;   // (inner / 4, rows, 4), zeros where a block is filled up
  float* scales;    // (blocks, rows), times alpha
  int32_t* starts;  // (blocks, rows) what a sum starts at, where the bytes looked up have an offset
  float* sums;      // (groups, rows) of the rounded activations, for planes that look nothing up

  // The tile that starts at a row.
  Activations at(const Weights& w, int64_t row) const {
    return {values + row * w.inner(), scales + row * w.blocks, starts + row * w.blocks, sums + row * w.groups};
  }
};

// Bytes of a panel. At 4096 inputs and outputs and 197 rows a32 takes 0.96 of fp32's time with these, 1.05 with 32 KiB:
// sums then go to memory and back four times as often. Few rows are better off with a panel in the L1 cache.
constexpr int64_t kPanel = 131072;

// What a thread works in.
struct Room {
  alignas(64) uint8_t panel[kPanel + 2048];    // in a32 the last block may fill up beyond the panel's end
  alignas(64) float products[kRowsAtOnce * kStrip];
};

struct Clusters;  // clusters.h
struct Keys;      // attend.h
enum class Linkage { kSingle, kComplete, kAverage };

struct Kernels {
  const char* name;
  int64_t rows_a8, rows_a32;  // of a tile
  void (*pack_a8)(const Weights&, const float* x, int64_t rows, const Activations& tile);
  // The outputs of a strip, for rows from `from`, the first of a tile, to `to`, at most kRowsAtOnce.
  void (*strip_a8)(const Weights&, int64_t strip, const Activations&, int64_t from, int64_t to, Room&,
                   float* y);
  void (*strip_a32)(const Weights&, int64_t strip, const float* x, int64_t from, int64_t to, Room&, float* y);
  void (*match)(const float* a, int64_t rows, int64_t width, const float* panels, const float* bias, int64_t strips,
                float* best, int64_t* place);
  void (*cluster)(const float* x, int64_t width, const float* panels, const float* padding, int64_t step,
                  const Clusters&, Linkage, int64_t count, int64_t* root);
  void (*attend)(const float* q, int64_t rows, int64_t first, const Keys&, const int32_t* list, int64_t count,
                 float* room, float* out);
  void (*snake)(const float* x, int64_t count, float alpha, float inverse, float* y);
};

// Null where it was not compiled or the machine cannot run it.
const Kernels* kernels_avx512();
const Kernels* kernels_avxvnni();
const Kernels* kernels_avx2();
const Kernels* kernels_neon();
const Kernels* kernels_portable();

// The widest of them, or the widest below the one that EDGETOK_NATIVE_ISA names.
const Kernels* choose_kernels();

}  // namespace edgetok
