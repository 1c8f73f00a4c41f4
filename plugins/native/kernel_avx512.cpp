// x86 with AVX512-VNNI: 16 lanes, and dot products of unsigned with signed bytes.
#include "instructions.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

namespace edgetok {
namespace {

struct Avx512 {
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  // 32 registers. a32: 12 x 2 sums, 2 weights. a8: 6 x 2 sums in fp32 and in int32, 2 weights, 2 scales.
  static constexpr int kRowsA32 = 12, kColumnsA32 = 2, kRowsA8 = 6, kColumnsA8 = 2;
  static constexpr int kOffset = 128;  // vpdpbusd takes the looked-up bytes as unsigned
  using Float = __m512;
  using Int = __m512i;

  static Float set(float x) { return _mm512_set1_ps(x); }
  static Float load(const float* x) { return _mm512_loadu_ps(x); }
  static Float load_half(const uint16_t* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
  static void store(float* to, Float x) { _mm512_storeu_ps(to, x); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }

  static Int start(int32_t x) { return _mm512_set1_epi32(x); }
  static Int load_bytes(const uint8_t* x) { return _mm512_loadu_si512(x); }
  static void store_bytes(uint8_t* to, Int x) { _mm512_storeu_si512(to, x); }
  static Int load_table(const int8_t* x) { return _mm512_xor_si512(_mm512_loadu_si512(x), _mm512_set1_epi8(-128)); }
  static Int field(Int codes, int shift) {
    return _mm512_and_si512(_mm512_srli_epi16(codes, shift), _mm512_set1_epi8(15));
  }
  static Int lookup(Int table, Int code) { return _mm512_shuffle_epi8(table, code); }
  static Int lookup(const Int (&table)[4], Int code) {  // outputs 4 q + j take table j
    Int found = _mm512_shuffle_epi8(table[0], code);
    found = _mm512_mask_shuffle_epi8(found, 0x00f000f000f000f0, table[1], code);
    found = _mm512_mask_shuffle_epi8(found, 0x0f000f000f000f00, table[2], code);
    return _mm512_mask_shuffle_epi8(found, 0xf000f000f000f000, table[3], code);
  }
  static Int dot(Int sum, Int weights, const int8_t* a) {
    int32_t four;
    std::memcpy(&four, a, 4);
    return _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(four));
  }

  struct Levels {
    Float at;
    explicit Levels(const float* x) : at(_mm512_loadu_ps(x)) {}
  };
  static Float pick(const Levels& levels, Int word, int shift) {  // the index is the low four bits
    return _mm512_permutexvar_ps(_mm512_srli_epi32(word, shift), levels.at);
  }
  static Float gather(const float* levels, const int32_t* first, Int word, int shift) {
    const Int code = _mm512_and_si512(_mm512_srli_epi32(word, shift), _mm512_set1_epi32(15));
    return _mm512_i32gather_ps(_mm512_add_epi32(code, _mm512_loadu_si512(first)), levels, 4);
  }
};

}  // namespace

const Kernels* kernels_avx512() {
  const bool runs = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return runs ? kernels_of<Avx512>() : nullptr;
}

}  // namespace edgetok
#else
namespace edgetok {
const Kernels* kernels_avx512() { return nullptr; }
}  // namespace edgetok
#endif
