// Numbers of half precision, computed with as float.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgetok {

inline uint32_t bits_of(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, 4);
  return number;
}

struct Half {
  uint16_t bits;

  operator float() const {  // the exponent moves from 5 to 8 bits by a multiplication, subnormals included
    const uint32_t special = (bits & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return float_of(bits_of(float_of((bits & 0x7fffu) << 13) * 0x1p112f) | special | (bits & 0x8000u) << 16);
  }
  static Half of(float number) {  // to nearest, ties to even
    const uint32_t sign = bits_of(number) >> 16 & 0x8000, size = bits_of(number) & 0x7fffffff;
    const auto signed_as = [&](uint32_t bits) { return Half{static_cast<uint16_t>(bits | sign)}; };
    if (size > 0x7f800000) return signed_as(0x7e00);   // NaN
    if (size >= 0x47800000) return signed_as(0x7c00);  // 65536 and more; from 65520 on the rounding below does it
    if (size < 0x38800000)                             // subnormal: 0.5 pushes out what does not fit
      return signed_as(bits_of(float_of(size) + 0.5f) - 0x3f000000);
    return signed_as((size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13);
  }
};

struct BFloat16 {
  uint16_t bits;

  operator float() const { return float_of(uint32_t(bits) << 16); }
  static BFloat16 of(float number) {
    const uint32_t size = bits_of(number);
    if (number != number) return {static_cast<uint16_t>(size >> 16 | 0x40)};
    return {static_cast<uint16_t>((size + 0x7fff + (size >> 16 & 1)) >> 16)};
  }
};

}  // namespace edgetok
