#include "weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgetok {
namespace {

constexpr int64_t kHugePage = 1 << 21;

// Codes of one output, one a byte, from a stream of bits that starts at the lowest.
void unpack(const uint8_t* packed, int64_t bytes, int64_t bits, uint8_t* codes) {
  uint32_t held = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < bytes; ++i) {
    for (held |= uint32_t(packed[i]) << count, count += 8; count >= bits; count -= bits, held >>= bits)
      *codes++ = held & ((1u << bits) - 1);
  }
}

void lay_out_codes(const Description& given, Weights& w) {
  const int64_t block = given.bytes * 8 / given.bits / given.groups;  // of weights; their last one may be short
  w.codes = make_array<uint8_t>(w.strips * w.blocks * w.chunks() * kChunk);
  std::memset(w.codes.get(), 0, w.strips * w.blocks * w.chunks() * kChunk);
  std::vector<uint8_t> row(block * given.groups);
  for (int64_t n = 0; n < w.outputs; ++n) {
    unpack(given.codes + n * given.bytes, given.bytes, given.bits, row.data());
    uint8_t* to = w.codes.get() + n / kStrip * w.blocks * w.chunks() * kChunk + n % kStrip * 4;
    for (int64_t b = 0; b < w.blocks; ++b)
      for (int64_t i = 0; i < w.block; ++i) {
        const int64_t chunk = i / (4 * w.fields()), field = i / 4 % w.fields();
        to[(b * w.chunks() + chunk) * kChunk + i % 4] |= uint8_t(row[b * w.block + i] << (field * w.bits));
      }
  }
}

void lay_out_scales(const Description& given, Weights& w) {
  const int64_t size = w.half ? 2 : 4, total = w.strips * w.planes * w.groups * kStrip * size;
  w.scales = make_array<uint8_t>(total);
  std::memset(w.scales.get(), 0, total);
  const uint8_t* from = static_cast<const uint8_t*>(given.scales);
  for (int64_t n = 0; n < w.outputs; ++n)
    for (int64_t g = 0; g < w.groups; ++g)
      for (int64_t p = 0; p < w.planes; ++p, from += size)
        std::memcpy(w.scales.get() + (((n / kStrip * w.planes + p) * w.groups + g) * kStrip + n % kStrip) * size, from,
                    size);
}

// Digits of the 16 levels of a table: level = step * (254 * high + low), the high ones all 0 where that is exact.
struct Digits {
  double step = 1;
  int8_t high[16] = {}, low[16] = {};
  bool two = false, constant = true;
};

bool integers(const float* levels, double step, int8_t* low) {
  for (int i = 0; i < 16; ++i) {
    const double whole = std::nearbyint(levels[i] / step);
    if (!(std::fabs(whole) <= 127) || static_cast<float>(whole * step) != levels[i]) return false;
    low[i] = static_cast<int8_t>(whole);
  }
  return true;
}

Digits digits_of(const float* levels) {
  Digits result;
  double most = 0, least = 0;
  for (int i = 0; i < 16; ++i) {
    const double size = std::fabs(levels[i]);
    most = std::max(most, size);
    if (size > 0 && (least == 0 || size < least)) least = size;
    result.constant &= levels[i] == levels[0];
  }
  if (most == 0) return result;
  for (int parts = 1; parts <= 127; ++parts)
    if (integers(levels, result.step = least / parts, result.low)) return result;
  result.step = most / 32384, result.two = true;
  for (int i = 0; i < 16; ++i) {
    const int whole = static_cast<int>(std::nearbyint(levels[i] / result.step));
    result.high[i] = static_cast<int8_t>(std::floor((whole + 126) / 254.0));
    result.low[i] = static_cast<int8_t>(whole - 254 * result.high[i]);
  }
  return result;
}

void add_pass(Weights& w, int64_t plane, const std::vector<Digits>& of_tables, bool high) {
  Pass pass{plane, make_array<int8_t>(w.strips * kTables), make_array<float>(w.strips * kStrip)};
  for (int64_t n = 0; n < w.strips * kStrip; ++n) {
    const Digits& digits = of_tables[w.first[n] / (16 * w.planes)];
    const int64_t lane = n % kStrip;
    std::memcpy(pass.tables.get() + n / kStrip * kTables + (lane % 4 * (kStrip / 4) + lane / 4) * 16,
                high ? digits.high : digits.low, 16);
    pass.steps[n] = static_cast<float>(digits.step * (high ? 254 : 1));
  }
  w.passes.push_back(std::move(pass));
}

void make_passes(Weights& w) {
  const int64_t tables = static_cast<int64_t>(w.levels.size()) / (16 * w.planes);
  for (int64_t p = 0; p < w.planes; ++p) {
    std::vector<Digits> of_tables;
    bool constant = true, two = false;
    for (int64_t t = 0; t < tables; ++t) {
      of_tables.push_back(digits_of(&w.levels[(t * w.planes + p) * 16]));
      constant &= of_tables.back().constant, two |= of_tables.back().two;
    }
    if (constant) {
      Pass pass{p, nullptr, make_array<float>(w.strips * kStrip)};
      for (int64_t n = 0; n < w.strips * kStrip; ++n) pass.steps[n] = w.levels[w.first[n] + p * 16];
      w.passes.push_back(std::move(pass));
      continue;
    }
    if (two) add_pass(w, p, of_tables, true);
    add_pass(w, p, of_tables, false);
  }
}

}  // namespace

void* allocate(int64_t bytes) {
  const int64_t line = bytes >= kHugePage ? kHugePage : 64;
  const int64_t size = (bytes + line) / line * line;
  void* memory = std::aligned_alloc(line, size);
  if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (line == kHugePage) madvise(memory, size, MADV_HUGEPAGE);
#endif
  return memory;
}

uint8_t* scratch(int64_t bytes) {
  thread_local Array<uint8_t> room;
  thread_local int64_t size = 0;
  if (bytes > size) room = make_array<uint8_t>(size = bytes);
  return room.get();
}

Weights::Weights(const Description& given, bool a8)
    : outputs(given.outputs), inputs(given.inputs), strips((given.outputs + kStrip - 1) / kStrip),
      bits(given.bits == 2 ? 2 : 4), groups(given.groups), planes(given.planes), alpha(given.alpha), half(given.half) {
  const int64_t weights = given.bytes * 8 / given.bits / groups;  // of a block
  for (block = std::min(weights, kWidestBlock); weights % block || block % 8;) --block;
  const int64_t whole = 4 * fields();
  padded = (block + whole - 1) / whole * whole;
  per_group = weights / block;
  blocks = groups * per_group;
  lay_out_codes(given, *this);
  lay_out_scales(given, *this);
  const int64_t count = int64_t(1) << given.bits, stored = int64_t(1) << bits;
  levels.assign(given.tables * planes * 16, 0.0f);
  for (int64_t t = 0; t < given.tables * planes; ++t)
    for (int64_t i = 0; i < 16; ++i)
      if (i % stored < count) levels[t * 16 + i] = given.codebook[t * count + i % stored];
      else levels[t * 16 + i] = given.codebook[t * count];  // never looked up
  const int64_t share = std::max<int64_t>(1, outputs / given.tables);
  mixed = given.tables > 1 && share % kStrip != 0;
  first.resize(strips * kStrip);
  for (int64_t n = 0; n < strips * kStrip; ++n)
    first[n] = static_cast<int32_t>(std::min(n, outputs - 1) / share * planes * 16);
  if (a8) make_passes(*this);
}

}  // namespace edgetok
