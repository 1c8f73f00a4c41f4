// Compares each instruction set's kernels with the portable ones, without ONNX Runtime: what an emulator can run.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

#include "attend.h"
#include "clusters.h"
#include "kernels.h"

using namespace edgetok;

namespace {

struct Case {
  int64_t bits, outputs, inputs, block, tables, planes;
  bool half;
};

constexpr Case kCases[] = {
    {4, 70, 200, 16, 1, 1, true}, {4, 33, 384, 128, 1, 1, false}, {3, 40, 150, 48, 1, 2, false},
    {2, 64, 100, 8, 1, 3, true},  {4, 37, 130, 64, 37, 1, true},  {2, 96, 1000, 1000, 3, 2, false},
};
constexpr int64_t kRows[] = {1, 2, 4, 5, 31};

std::mt19937 seeded(0);

struct Made {  // the arrays that a description points to
  std::vector<uint8_t> codes;
  std::vector<float> codebook, scales;
  std::vector<uint16_t> halves;
};

Weights make(const Case& c, Made& made) {
  const int64_t groups = (c.inputs + c.block - 1) / c.block;
  made.codes.resize(c.outputs * groups * c.block * c.bits / 8);
  made.codebook.resize(c.tables * c.planes << c.bits);
  made.scales.resize(c.outputs * groups * c.planes);
  std::normal_distribution<float> normal;
  for (auto& byte : made.codes) byte = uint8_t(seeded());
  for (auto& level : made.codebook) level = normal(seeded);
  for (auto& scale : made.scales) scale = 0.5f + float(seeded() % 1000) / 1000;
  for (size_t i = 0; i < made.scales.size(); ++i) made.halves.push_back(uint16_t(0x3000 + seeded() % 0x1000));
  const void* scales = c.half ? static_cast<const void*>(made.halves.data()) : made.scales.data();
  return Weights({made.codes.data(), made.codebook.data(), scales, c.half, c.outputs, c.inputs,
                  groups * c.block * c.bits / 8, c.tables, c.planes, groups, c.bits, 0.25f}, true);
}

std::vector<float> product(const Kernels& k, const Weights& w, const std::vector<float>& x, int64_t rows, bool a8) {
  std::vector<float> y(rows * w.outputs), scales(rows * w.blocks), sums(rows * w.groups);
  std::vector<int8_t> values(rows * w.inner());
  std::vector<int32_t> starts(rows * w.blocks);
  const Activations all{values.data(), scales.data(), starts.data(), sums.data()};
  const auto room = std::make_unique<Room>();
  if (a8)
    for (int64_t r = 0; r < rows; r += k.rows_a8)
      k.pack_a8(w, x.data() + r * w.inputs, least(k.rows_a8, rows - r), all.at(w, r));
  for (int64_t s = 0; s < w.strips; ++s)
    if (a8) k.strip_a8(w, s, all, 0, rows, *room, y.data());
    else k.strip_a32(w, s, x.data(), 0, rows, *room, y.data());
  return y;
}

double difference(const Kernels& k, const Weights& w, int64_t rows, bool a8) {
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * w.inputs);
  for (auto& value : x) value = normal(seeded);
  const auto want = product(*kernels_portable(), w, x, rows, a8), got = product(k, w, x, rows, a8);
  double most = 0, off = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    most = std::fmax(most, std::fabs(want[i]));
    off = got[i] == got[i] ? std::fmax(off, std::fabs(double(got[i]) - want[i])) : INFINITY;
  }
  return off / most;
}

// What a set of kernels chooses among random tokens: the best matches, and clusters by each linkage.
std::vector<int64_t> choices(const Kernels& k, const std::vector<float>& x, int64_t tokens, int64_t width) {
  const int64_t strips = (tokens + kStrip - 1) / kStrip, pitch = strips * kStrip;
  std::vector<float> panels(pitch * width), bias(pitch, -INFINITY), best(tokens), room(Clusters::floats(tokens, pitch));
  for (int64_t row = 0; row < tokens; ++row) {
    bias[row] = 0;
    for (int64_t i = 0; i < width; ++i)
      panels[(row / kStrip * width + i) * kStrip + row % kStrip] = x[row * width + i];
  }
  std::vector<int64_t> chosen(4 * tokens);
  for (int64_t row = 1; row < tokens; row += kMatched)
    k.match(x.data() + row * width, least(kMatched, tokens - row), width, panels.data(), bias.data(), strips,
            best.data() + row, chosen.data() + row);
  const float none = 0;
  for (int i = 0; i < 3; ++i)
    k.cluster(x.data(), width, panels.data(), &none, 0, Clusters(room.data(), tokens, pitch), Linkage(i), tokens / 3,
              chosen.data() + (i + 1) * tokens);
  return chosen;
}

bool same_choices(const Kernels& k) {
  std::normal_distribution<float> normal;
  for (const auto [tokens, width] : {std::pair{31, 3}, {197, 64}, {70, 33}}) {
    std::vector<float> x(tokens * width);
    for (int64_t row = 0; row < tokens; ++row) {
      float squares = 0;
      for (int64_t i = row * width; i < (row + 1) * width; ++i) x[i] = normal(seeded), squares += x[i] * x[i];
      for (int64_t i = row * width; i < (row + 1) * width; ++i) x[i] /= std::sqrt(squares);
    }
    if (choices(k, x, tokens, width) != choices(*kernels_portable(), x, tokens, width)) return false;
  }
  return true;
}

// Attention of 64 queries to four of five blocks, the last of which is filled up, with a window and without.
std::vector<float> attended(const Kernels& k, const std::vector<float>& numbers, bool causal, int64_t window) {
  constexpr int64_t block = 48, width = 37, rows = 61, blocks = 5;
  Keys of{nullptr, nullptr, nullptr, block, width, 2, 2, causal, window, 3};
  std::vector<float> bias(blocks * of.pitch()), room(of.room()), out(rows * of.value_strips * kStrip);
  for (size_t i = 0; i < bias.size(); ++i) {
    const int64_t inside = int64_t(i) % of.pitch(), key = int64_t(i) / of.pitch() * block + inside;
    bias[i] = inside < block && key < 230 ? numbers[i] : -INFINITY;
  }
  of.keys = numbers.data(), of.values = of.keys + blocks * of.pitch() * width, of.bias = bias.data();
  const int32_t list[] = {4, 0, 2, 1};
  k.attend(of.values + blocks * block * of.value_strips * kStrip, rows, 100, of, list, 4, room.data(), out.data());
  return out;
}

double attention_differs(const Kernels& k) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(5 * 64 * 37 + 5 * 48 * 64 + 61 * 37);
  for (float& number : numbers) number = normal(seeded) / 2;
  double off = 0;
  for (const auto [causal, window] : {std::pair{false, -1}, {true, -1}, {false, 40}, {true, 20}}) {
    const auto want = attended(*kernels_portable(), numbers, causal, window);
    const auto got = attended(k, numbers, causal, window);
    for (size_t i = 0; i < got.size(); ++i)
      off = got[i] == got[i] ? std::fmax(off, std::fabs(double(got[i]) - want[i])) : INFINITY;
  }
  return off;
}

// Of 300 numbers in the kernel's reach, and as many beyond it.
double snake_differs(const Kernels& k) {
  std::normal_distribution<float> normal;
  double off = 0;
  for (const float scale : {3.0f, 1e5f}) {
    std::vector<float> x(300), want(300), got(300);
    for (float& number : x) number = scale * normal(seeded);
    kernels_portable()->snake(x.data(), 300, 0.7f, 1.4f, want.data());
    k.snake(x.data(), 300, 0.7f, 1.4f, got.data());
    for (size_t i = 0; i < got.size(); ++i)
      off = got[i] == got[i] ? std::fmax(off, std::fabs(double(got[i]) - want[i]) / scale) : INFINITY;
  }
  return off;
}

}  // namespace

int main() {
  bool equal = true;
  for (const Kernels* k : {kernels_avx512(), kernels_avxvnni(), kernels_avx2(), kernels_neon()}) {
    if (!k) continue;
    double worst = 0;
    for (const Case& c : kCases) {
      Made made;
      const Weights w = make(c, made);
      for (const int64_t rows : kRows)
        for (const bool a8 : {false, true}) worst = std::fmax(worst, difference(*k, w, rows, a8));
    }
    worst = std::fmax(worst, std::fmax(attention_differs(*k), snake_differs(*k)));
    std::printf("%s differs by %.1e\n", k->name, worst);
    equal &= worst < 1e-5 && same_choices(*k);
  }
  return !equal;
}
