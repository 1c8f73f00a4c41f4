// Any machine: vectors of four, as plain loops.
#include "strip.h"

namespace edgetok {
namespace {

struct Portable {
  static constexpr const char* kName = "portable";
  static constexpr int kLanes = 4;
  static constexpr int kRowsA32 = 4, kColumnsA32 = 2, kRowsA8 = 4, kColumnsA8 = 1;
  static constexpr int kOffset = 0;
  typedef float Float __attribute__((vector_size(16)));
  union Int {
    uint8_t bytes[16];
    int8_t weights[16];
    int32_t sums[4];
    uint32_t words[4];
  };

  static Float set(float x) { return Float{x, x, x, x}; }
  static Float load(const float* x) {
    Float result;
    std::memcpy(&result, x, sizeof result);
    return result;
  }
  static Float load_half(const uint16_t* x) { return Float{half(x[0]), half(x[1]), half(x[2]), half(x[3])}; }
  static void store(float* to, Float x) { std::memcpy(to, &x, sizeof x); }
  static Float mul(Float a, Float b) { return a * b; }
  static Float fma(Float a, Float b, Float c) { return a * b + c; }
  static Float to_float(Int x) { return Float{float(x.sums[0]), float(x.sums[1]), float(x.sums[2]), float(x.sums[3])}; }

  static Int start(int32_t x) { return {.sums = {x, x, x, x}}; }
  static Int load_bytes(const uint8_t* x) {
    Int result;
    std::memcpy(&result, x, sizeof result);
    return result;
  }
  static void store_bytes(uint8_t* to, Int x) { std::memcpy(to, &x, sizeof x); }
  static Int load_table(const int8_t* x) { return load_bytes(reinterpret_cast<const uint8_t*>(x)); }
  static Int field(Int codes, int shift) {
    for (uint8_t& byte : codes.bytes) byte = byte >> shift & 15;
    return codes;
  }
  static Int lookup(const Int& table, Int code) {
    for (uint8_t& byte : code.bytes) byte = table.bytes[byte];
    return code;
  }
  static Int lookup(const Int (&table)[4], Int code) {
    for (int i = 0; i < 16; ++i) code.bytes[i] = table[i / 4].bytes[code.bytes[i]];
    return code;
  }
  static Int dot(Int sum, const Int& w, const int8_t* a) {
    for (int n = 0; n < 4; ++n)
      for (int i = 0; i < 4; ++i) sum.sums[n] += w.weights[n * 4 + i] * a[i];
    return sum;
  }

  struct Levels {
    const float* at;
    explicit Levels(const float* x) : at(x) {}
  };
  static Float pick(const Levels& levels, Int word, int shift) {
    const uint32_t* w = word.words;
    return Float{levels.at[w[0] >> shift & 15], levels.at[w[1] >> shift & 15], levels.at[w[2] >> shift & 15],
                 levels.at[w[3] >> shift & 15]};
  }
  static Float gather(const float* levels, const int32_t* first, Int word, int shift) {
    Float result;
    for (int n = 0; n < 4; ++n) result[n] = levels[first[n] + (word.words[n] >> shift & 15)];
    return result;
  }

 private:
  static float half(uint16_t x) {  // the exponent moves from 5 to 8 bits by a multiplication, subnormals included
    const uint32_t sign = (x & 0x8000u) << 16, rest = (x & 0x7fffu) << 13;
    const uint32_t special = (x & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    float number;
    std::memcpy(&number, &rest, 4);
    number *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    bits |= sign | special;
    std::memcpy(&number, &bits, 4);
    return number;
  }
};

}  // namespace

const Kernels* kernels_portable() { return kernels_of<Portable>(); }

}  // namespace edgetok
