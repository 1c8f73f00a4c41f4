// edgetok::AgglomerativeClusters: the two closest clusters of tokens are merged until a fixed number is left.
//
// What plugins/agglomerative_clusters.py computes in rounds. Samples are independent: one is a thread's.
#include <algorithm>

#include "clusters.h"
#include "operators.h"

namespace edgetok {
namespace {

Linkage linkage_of(const std::string& name) {
  if (name == "single") return Linkage::kSingle;
  if (name == "complete") return Linkage::kComplete;
  require(name == "average", "linkage is '" + name + "'; single, complete and average are there");
  return Linkage::kAverage;
}

class AgglomerativeClusters {
 public:
  static constexpr const char* kName = "AgglomerativeClusters";
  static constexpr ort::Type kInputs[] = {ort::kFloat, ort::kFloat};
  static constexpr ort::Type kOutputs[] = {ort::kInt64};

  AgglomerativeClusters(const Runtime& runtime, const ort::KernelInfo* info)
      : count_(runtime.integer(info, "count")), linkage_(linkage_of(runtime.text(info, "linkage"))) {
    require(count_ > 0, "count is " + std::to_string(count_) + "; one cluster is the least");
  }

  void compute(const Run& run) const {
    const auto x = run.shape(0);
    require(x.size() == 3, "x is (B, N, d)");
    const int64_t batch = x[0], tokens = x[1], width = x[2], strips = up(tokens, kStrip), pitch = strips * kStrip;
    require(tokens >= count_, std::to_string(count_) + " clusters of " + std::to_string(tokens) + " tokens");
    const float* from = run.input<float>(0);
    const Bias padding(run, 1, batch, tokens);
    int64_t* label = run.output<int64_t>(0, {batch, tokens});

    const int64_t panel = pitch * width, own = panel + Clusters::floats(tokens, pitch);  // of a sample
    float* room = reinterpret_cast<float*>(scratch(4 * batch * own));
    run.parallel(batch, [&](int64_t i) {
      float* panels = room + i * own;
      int64_t* root = label + i * tokens;
      lay_panels(from + i * tokens * width, tokens, width, panels);
      kernels_.cluster(from + i * tokens * width, width, panels, padding.row(i), padding.step,
                       Clusters(panels + panel, tokens, pitch), linkage_, count_, root);
      number(root, tokens);
    });
  }

 private:
  // Lowest tokens -> clusters' numbers, in place: a cluster's lowest token comes before its others. A sample that is not
  // finite has more clusters than there are numbers.
  void number(int64_t* root, int64_t tokens) const {
    int64_t found = 0;
    for (int64_t i = 0; i < tokens; ++i)
      root[i] = root[i] == i ? std::min(found++, count_ - 1) : root[root[i]];
  }

  const Kernels& kernels_ = *choose_kernels();
  int64_t count_;
  Linkage linkage_;
};

const Added kAdded(kFunctions, {operator_of<AgglomerativeClusters>()});

}  // namespace
}  // namespace edgetok
