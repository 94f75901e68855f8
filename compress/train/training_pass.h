// A pass that works during training: options and a card like every pass, and hooks.
//
// In a recipe it stands under `during` of a train step. Its file ends in COMPRESS_PASS like any
// other's; its class derives from `TrainingPassWith<its options>` and makes its hook.

#pragma once

#include "compress/pass.h"
#include "compress/train/hook.h"

#include <memory>

namespace compress {

/// A training pass as the trainer sees it.
class TrainingPass {
 public:
  virtual ~TrainingPass() = default;
  virtual std::unique_ptr<TrainingHook> hook_any(const AnyOptions& options) const = 0;
};

/// The base of a training pass with options of the given struct. Its card says Needs::kTraining.
template <class OptionsStruct>
class TrainingPassWith : public PassWith<OptionsStruct>, public TrainingPass {
 public:
  /// The method at work in one run.
  virtual std::unique_ptr<TrainingHook> hook(const OptionsStruct& options) const = 0;

  std::unique_ptr<TrainingHook> hook_any(const AnyOptions& options) const final {
    return hook(dynamic_cast<const OptionsOf<OptionsStruct>&>(options).value);
  }
  bool is_hook() const final { return true; }
  /// Refused: there is no loop to work in.
  Change run(Model&, const OptionsStruct&, PassContext&) const final {
    throw Error(ErrorCode::kInvalidArgument, "works during training only", {},
                "put it under `during` of a `train` step");
  }
};

}  // namespace compress
