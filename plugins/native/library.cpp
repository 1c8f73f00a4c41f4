// The library's two functions: it registers the operators, and says which instruction set they use.
#include <cstdlib>
#include <string_view>
#include <utility>

#include "kernels.h"
#include "operators.h"

#ifndef EDGETOK_SOURCES
#define EDGETOK_SOURCES "unknown"
#endif

namespace edgetok {
namespace {

// Read from the file without loading it: whether these sources made it.
__attribute__((used)) const char kMark[] = "edgetok sources sha256 " EDGETOK_SOURCES;

}  // namespace

const Runtime* registered = nullptr;

namespace {

// By domain. Made when first asked for: files add to it before `main`, in any order.
std::vector<ort::CustomOp>& added(DomainOf domain) {
  static std::vector<ort::CustomOp> all[2];
  return all[domain];
}

}  // namespace

Added::Added(DomainOf domain, std::initializer_list<ort::CustomOp> operators) {
  added(domain).insert(added(domain).end(), operators);
}

// The widest instruction set here, or the widest below the one that EDGETOK_NATIVE_ISA names.
const Kernels* choose_kernels() {
  const char* cap = std::getenv("EDGETOK_NATIVE_ISA");
  const std::string_view most = cap ? cap : "";
  bool allowed = most.empty();
  const std::pair<const char*, const Kernels*> sets[] = {
      {"avx512", kernels_avx512()}, {"avxvnni", kernels_avxvnni()}, {"avx2", kernels_avx2()}, {"neon", kernels_neon()}};
  for (const auto& [name, kernels] : sets) {
    allowed |= most == name;
    if (allowed && kernels) return kernels;
  }
  return kernels_portable();
}

}  // namespace edgetok

#define EDGETOK_EXPORT extern "C" __attribute__((visibility("default")))

EDGETOK_EXPORT const char* edgetok_isa() { return edgetok::choose_kernels()->name; }

EDGETOK_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::kApiVersion);
  if (!api) return nullptr;  // older than 1.17: the session then knows none of the operators, and says so
  static const edgetok::Runtime runtime(api);
  edgetok::registered = &runtime;
  return runtime.guarded("edgetok's operators", [&] {
    static ort::Domain* domains[2] = {};  // must outlive every session: they are never released
    for (const auto domain : {edgetok::kOwn, edgetok::kFunctions}) {
      if (!domains[domain]) {
        const char* name = domain == edgetok::kOwn ? "edgetok.native" : "edgetok";
        runtime.call<ort::CreateCustomOpDomain>(name, &domains[domain]);
        for (const ort::CustomOp& each : edgetok::added(domain))
          runtime.call<ort::CustomOpDomain_Add>(domains[domain], &each);
      }
      runtime.call<ort::AddCustomOpDomain>(options, domains[domain]);
    }
  });
}
