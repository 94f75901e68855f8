// Inference that is planned once for fixed input sizes and then only runs.
//
// A plan chooses oneDNN kernels, packs weights for them, fuses what follows a layer into it and
// gives every intermediate value its place in one block of memory. A network with quantizers in the
// graph (`aten::fake_quantize_per_tensor_affine` on values, symmetric codes for weights) computes
// on eight-bit integers from end to end.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// What a plan computes in.
enum class EnginePrecision {
  kGraph,     ///< integers where the graph has quantizers, else float
  kFloat,     ///< float throughout; quantizers run as the graph has them
  kBfloat16,  ///< as kGraph, with bfloat16 in the place of float
};
inline std::vector<std::string_view> option_names(EnginePrecision) {
  return {"graph", "float", "bfloat16"};
}

struct PlanOptions {
  EnginePrecision precision = EnginePrecision::kGraph;
  int threads = 0;  ///< 0: as many as LibTorch uses now
};

/// Whether this build has oneDNN; without it `plan` throws Error(kUnsupported).
bool has_engine();
/// Throws Error(kUnsupported), which says how to get it, if it has not.
void require_engine();
/// Whether the processor adds up products of eight-bit codes in 32 bits (VNNI on x86). Where it has
/// no such instruction, layers whose sums could overflow 16 bits are planned in float: a source of
/// signed codes, or weights of more than seven bits.
bool has_wide_integer_sums();
/// Whether there are bfloat16 kernels for this processor (x86: AVX-512, or AVX2-VNNI-2). Without
/// them `plan` throws Error(kUnsupported) for that precision.
bool has_bfloat16_kernels();

/// A network ready to run. Not safe for use by two threads at once.
class Plan {
 public:
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;
  ~Plan();

  /// Runs on CPU tensors of the planned sizes and dtypes; the outputs are fresh tensors. Throws
  /// Error(kInvalidArgument) for inputs of others, Error(kRunFailed) if a kernel fails.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);

  /// One line a step: kernel, dtypes and sizes, what is fused, place in memory; then the totals.
  std::string text() const;

  /// Bytes of all intermediate values together, and of packed weights.
  int64_t arena_bytes() const;
  int64_t weight_bytes() const;

 private:
  struct State;
  friend Plan plan(const Model& model, const std::vector<at::Tensor>& inputs,
                   const PlanOptions& options);
  explicit Plan(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Plans `model` in inference mode for inputs of these sizes; the model itself stays as it is, and
/// later changes to it are not seen. Operators without a kernel run through LibTorch inside the
/// plan. Throws Error(kUnsupported) for a build without oneDNN, for a model on another device than
/// the CPU, or one whose numbers depend on data; and what a run throws.
Plan plan(const Model& model, const std::vector<at::Tensor>& inputs,
          const PlanOptions& options = {});

/// Runs a model through plans that it makes when inputs of new sizes or dtypes come up.
class PlannedModel {
 public:
  /// `model` must outlive it.
  explicit PlannedModel(const Model& model, PlanOptions options = {});
  ~PlannedModel();
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);
  bool has_plan_for(const std::vector<at::Tensor>& inputs) const;
  /// The plan for inputs of these sizes and dtypes, made if need be.
  Plan& plan_for(const std::vector<at::Tensor>& inputs);

 private:
  struct Entry;
  Entry* find(const std::vector<at::Tensor>& inputs) const;
  const Model& model_;
  PlanOptions options_;
  std::vector<std::unique_ptr<Entry>> plans_;
};

}  // namespace compress
