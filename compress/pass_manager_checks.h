// What the pass manager holds against a model before and after each step. Private to the manager.

#pragma once

#include "compress/model.h"
#include "compress/pass.h"
#include "compress/recipe.h"
#include "compress/selector.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace compress {

/// Looks for weights that are not finite, at each tensor once until it changes.
///
/// Parameters must be finite; buffers may be infinite (attention masks) but not NaN.
class FiniteCheck {
 public:
  /// One sentence naming up to three tensors that changed since the last call and are not what they
  /// should be; empty when all are.
  std::string problem(const Model& model);
  /// Takes a tensor's present contents as looked at and found good.
  void accept(const NamedTensor& named);

 private:
  struct Stamp {
    // Weak: the old contents may go, but their address is not given to others while we compare it.
    c10::weak_intrusive_ptr<c10::StorageImpl> storage;
    const void* data = nullptr;
    int64_t version = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp_of(const NamedTensor& named);
  std::unordered_map<std::string, Stamp> seen_;
};

/// Types and outputs of a model, taken before a step and compared after it.
class KeptClaims {
 public:
  /// Runs a copy of the model in eval mode on random inputs that depend on nothing but their sizes.
  explicit KeptClaims(const Model& model);
  /// What `keeps` promises and the model broke, one sentence; empty when all is kept.
  std::string broken(const Model& model, Keeps keeps) const;

 private:
  bool can_run_ = false;
  std::vector<at::Tensor> inputs_, outputs_;
  std::vector<std::string> names_;  // of the outputs
};

/// A sentence for each glob among a step's options that matches no weight, while others beside it
/// do.
std::vector<std::string> idle_globs(const Step& step, const std::vector<SelectorTarget>& targets);

}  // namespace compress
