// The engine of a build without oneDNN: says how to get it.

#include "compress/engine/plan.h"
#include "compress/error.h"

#include <cstdlib>

namespace compress {

struct Plan::State {};

void require_engine() {
  throw Error(ErrorCode::kUnsupported, "this build has no inference engine: oneDNN was not found",
              {},
              "install it (pip install onednn-devel-cpu-gomp==2023.2.0 in LibTorch's environment, "
              "or set dnnl_DIR), then configure and build anew");
}

bool has_engine() { return false; }
bool has_wide_integer_sums() { return false; }
bool has_bfloat16_kernels() { return false; }

namespace {

[[noreturn]] void refuse() {
  require_engine();
  std::abort();  // not reached
}

}  // namespace

Plan::Plan(std::unique_ptr<State> state) : state_(std::move(state)) {}
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;
std::vector<at::Tensor> Plan::run(const std::vector<at::Tensor>&) { refuse(); }
std::string Plan::text() const { refuse(); }
int64_t Plan::arena_bytes() const { refuse(); }
int64_t Plan::weight_bytes() const { refuse(); }

Plan plan(const Model&, const std::vector<at::Tensor>&, const PlanOptions&) { refuse(); }

}  // namespace compress
