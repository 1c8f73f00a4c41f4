// Any machine: vectors of four, as plain loops.
#include "instructions.h"
#include "number.h"

namespace edgetok {
namespace {

struct Portable {
  static constexpr const char* kName = "portable";
  static constexpr int kLanes = 4;
  static constexpr int kRowsA32 = 4, kColumnsA32 = 2, kRowsA8 = 4, kColumnsA8 = 1;
  static constexpr int kOffset = 0;
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Words __attribute__((vector_size(16)));
  union Int {
    uint8_t bytes[16];
    Words words;
    Float sums;  // of integers below 2^24, so exact: not every machine multiplies 32-bit integers by vectors
  };

  static Float set(float x) { return Float{x, x, x, x}; }
  static Float load(const float* x) {
    Float result;
    std::memcpy(&result, x, sizeof result);
    return result;
  }
  static Float load_half(const uint16_t* x) { return Float{Half{x[0]}, Half{x[1]}, Half{x[2]}, Half{x[3]}}; }
  static void store(float* to, Float x) { std::memcpy(to, &x, sizeof x); }
  static Float mul(Float a, Float b) { return a * b; }
  static Float fma(Float a, Float b, Float c) { return a * b + c; }
  static Float to_float(Int x) { return x.sums; }

  static Int start(int32_t x) { return {.sums = set(static_cast<float>(x))}; }
  static Int load_bytes(const uint8_t* x) {
    Int result;
    std::memcpy(&result, x, sizeof result);
    return result;
  }
  static void store_bytes(uint8_t* to, Int x) { std::memcpy(to, &x, sizeof x); }
  static Int load_table(const int8_t* x) { return load_bytes(reinterpret_cast<const uint8_t*>(x)); }
  static Int field(Int codes, int shift) { return {.words = codes.words >> shift & 0x0f0f0f0f}; }
  static int32_t lookup(const uint8_t* table, uint32_t code) {
    return static_cast<int32_t>(table[code & 15] | table[code >> 8 & 15] << 8 | table[code >> 16 & 15] << 16 |
                                uint32_t(table[code >> 24]) << 24);
  }
  static Int lookup(const Int& table, Int code) {
    const uint8_t* t = table.bytes;
    const Words c = code.words;
    return {.words = Words{lookup(t, c[0]), lookup(t, c[1]), lookup(t, c[2]), lookup(t, c[3])}};
  }
  static Int lookup(const Int (&table)[4], Int code) {  // output j takes table j
    const Words c = code.words;
    return {.words = Words{lookup(table[0].bytes, c[0]), lookup(table[1].bytes, c[1]), lookup(table[2].bytes, c[2]),
                           lookup(table[3].bytes, c[3])}};
  }
  static Int dot(Int sum, const Int& w, const int8_t* a) {
    for (int i = 0; i < 4; ++i)
      sum.sums += __builtin_convertvector((w.words << (24 - 8 * i)) >> 24, Float) * static_cast<float>(a[i]);
    return sum;
  }

  struct Levels {
    const float* at;
    explicit Levels(const float* x) : at(x) {}
  };
  static Float pick(const Levels& levels, Int word, int shift) {
    const Words code = word.words >> shift & 15;
    return Float{levels.at[code[0]], levels.at[code[1]], levels.at[code[2]], levels.at[code[3]]};
  }
  static Float gather(const float* levels, const int32_t* first, Int word, int shift) {
    Float result;
    for (int n = 0; n < 4; ++n) result[n] = levels[first[n] + (word.words[n] >> shift & 15)];
    return result;
  }

};

}  // namespace

const Kernels* kernels_portable() { return kernels_of<Portable>(); }

}  // namespace edgetok
