// ARM with the dot product extension (Cortex-A55, A76 and later, Apple, Orin): 4 lanes.
#include "instructions.h"

#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace edgetok {
namespace {

struct Neon {
  static constexpr const char* kName = "neon";
  static constexpr int kLanes = 4;
  // 32 registers. a32: 6 x 4 sums, 4 weights. a8: 3 x 4 sums in fp32 and in int32, 4 weights.
  static constexpr int kRowsA32 = 6, kColumnsA32 = 4, kRowsA8 = 3, kColumnsA8 = 4;
  static constexpr int kOffset = 0;
  using Float = float32x4_t;
  using Int = uint8x16_t;

  static Float set(float x) { return vdupq_n_f32(x); }
  static Float load(const float* x) { return vld1q_f32(x); }
  static Float load_half(const uint16_t* x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
  static void store(float* to, Float x) { vst1q_f32(to, x); }
  static Float mul(Float a, Float b) { return vmulq_f32(a, b); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  static Float to_float(Int x) { return vcvtq_f32_s32(vreinterpretq_s32_u8(x)); }

  static Int start(int32_t x) { return vreinterpretq_u8_s32(vdupq_n_s32(x)); }
  static Int load_bytes(const uint8_t* x) { return vld1q_u8(x); }
  static void store_bytes(uint8_t* to, Int x) { vst1q_u8(to, x); }
  static Int load_table(const int8_t* x) { return vreinterpretq_u8_s8(vld1q_s8(x)); }
  static Int field(Int codes, int shift) {
    return vandq_u8(vshlq_u8(codes, vdupq_n_s8(static_cast<int8_t>(-shift))), vdupq_n_u8(15));
  }
  static Int lookup(Int table, Int code) { return vqtbl1q_u8(table, code); }
  static Int lookup(const Int (&table)[4], Int code) {  // output j takes table j, 16 bytes further on
    const uint32x4_t further{0x00000000, 0x10101010, 0x20202020, 0x30303030};
    return vqtbl4q_u8({table[0], table[1], table[2], table[3]}, vorrq_u8(code, vreinterpretq_u8_u32(further)));
  }
  static Int dot(Int sum, Int weights, const int8_t* a) {
    int32_t four;
    std::memcpy(&four, a, 4);
    const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return vreinterpretq_u8_s32(vdotq_s32(vreinterpretq_s32_u8(sum), vreinterpretq_s8_u8(weights), all));
  }

  struct Levels {  // 16 numbers of 4 bytes: a table of bytes
    uint8x16x4_t at;
    explicit Levels(const float* x) : at(vld1q_u8_x4(reinterpret_cast<const uint8_t*>(x))) {}
  };
  static Float pick(const Levels& levels, Int word, int shift) {
    const uint32x4_t code = vandq_u32(vshlq_u32(vreinterpretq_u32_u8(word), vdupq_n_s32(-shift)), vdupq_n_u32(15));
    const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), code, vdupq_n_u32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(levels.at, vreinterpretq_u8_u32(bytes)));
  }
  static Float gather(const float* levels, const int32_t* first, Int word, int shift) {
    uint32_t words[4];
    vst1q_u8(reinterpret_cast<uint8_t*>(words), word);
    float found[4];
    for (int n = 0; n < 4; ++n) found[n] = levels[first[n] + (words[n] >> shift & 15)];
    return vld1q_f32(found);
  }
};

}  // namespace

const Kernels* kernels_neon() {
#if defined(__linux__)
  if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return nullptr;
#endif
  return kernels_of<Neon>();
}

}  // namespace edgetok
#else
namespace edgetok {
const Kernels* kernels_neon() { return nullptr; }
}  // namespace edgetok
#endif
