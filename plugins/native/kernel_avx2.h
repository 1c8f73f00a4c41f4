// x86 with AVX2, FMA and F16C: 8 lanes. With AVX-VNNI too, dot products are one instruction.
#pragma once

#include "instructions.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

namespace edgetok {
namespace {

template <bool Vnni>
struct Avx2 {
  static constexpr const char* kName = Vnni ? "avxvnni" : "avx2";
  static constexpr int kLanes = 8;
  // 16 registers. a32: 6 x 2 sums, 2 weights. a8: 4 x 2 sums in int32, 2 weights and what a dot needs; those in fp32 are
  // in memory while a block is summed.
  static constexpr int kRowsA32 = 6, kColumnsA32 = 2, kRowsA8 = 4, kColumnsA8 = 2;
  static constexpr int kOffset = Vnni ? 128 : 0;  // vpdpbusd takes the looked-up bytes as unsigned
  using Float = __m256;
  using Int = __m256i;

  static Float set(float x) { return _mm256_set1_ps(x); }
  static Float load(const float* x) { return _mm256_loadu_ps(x); }
  static Float load_half(const uint16_t* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
  static void store(float* to, Float x) { _mm256_storeu_ps(to, x); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }

  static Int start(int32_t x) { return _mm256_set1_epi32(x); }
  static Int load_bytes(const void* x) { return _mm256_loadu_si256(static_cast<const __m256i*>(x)); }
  static void store_bytes(uint8_t* to, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
  static Int load_table(const int8_t* x) {
    return Vnni ? _mm256_xor_si256(load_bytes(x), _mm256_set1_epi8(-128)) : load_bytes(x);
  }
  static Int field(Int codes, int shift) {
    return _mm256_and_si256(_mm256_srli_epi16(codes, shift), _mm256_set1_epi8(15));
  }
  static Int lookup(Int table, Int code) { return _mm256_shuffle_epi8(table, code); }
  static Int lookup(const Int (&table)[4], Int code) {  // outputs 4 q + j take table j
    const Int low = _mm256_blend_epi32(lookup(table[0], code), lookup(table[1], code), 0x22);
    const Int high = _mm256_blend_epi32(lookup(table[2], code), lookup(table[3], code), 0x88);
    return _mm256_blend_epi32(low, high, 0xcc);
  }
  // Without VNNI |a| times the weights with a's sign: two products are at most 2 * 127 * 127, so 16 bits hold them.
  static Int dot(Int sum, Int weights, const int8_t* a) {
    int32_t four;
    std::memcpy(&four, a, 4);
    const Int all = _mm256_set1_epi32(four);
#if defined(__AVXVNNI__)
    if constexpr (Vnni) return _mm256_dpbusd_avx_epi32(sum, weights, all);
#endif
    const Int pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(all), _mm256_sign_epi8(weights, all));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  struct Levels {
    Float low, high;
    explicit Levels(const float* x) : low(_mm256_loadu_ps(x)), high(_mm256_loadu_ps(x + 8)) {}
  };
  static Float pick(const Levels& levels, Int word, int shift) {  // three bits choose, the fourth blends
    const Int code = _mm256_srli_epi32(word, shift);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(levels.low, code), _mm256_permutevar8x32_ps(levels.high, code),
                            _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
  }
  static Float gather(const float* levels, const int32_t* first, Int word, int shift) {
    const Int code = _mm256_and_si256(_mm256_srli_epi32(word, shift), _mm256_set1_epi32(15));
    return _mm256_i32gather_ps(levels, _mm256_add_epi32(code, load_bytes(first)), 4);
  }
};

}  // namespace
}  // namespace edgetok
#endif
