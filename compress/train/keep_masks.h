// Masked weights stay zero, whatever the optimizer does.

#pragma once

#include "compress/train/hook.h"

#include <string>
#include <vector>

namespace compress {

/// Zeroes `parameter` and its momentum where `keep` (bool, the same sizes) is false. Momentum and
/// weight decay move a weight also where its gradient is zero.
void hold_at_zero(Training& training, std::string_view parameter, const at::Tensor& keep);

/// Holds the stored elements under every mask of the model's graph at zero. A part of every
/// training session.
class KeepMasks final : public TrainingHook {
 public:
  void attach(Training& training) override { find(training); }
  void restore(Training& training, const State&) override { find(training); }
  void after_step(Training& training) override;
  void finish(Training&) override {}

 private:
  struct Masked {
    std::string parameter, mask;
  };
  void find(const Training& training);

  std::vector<Masked> masked_;
  uint64_t version_ = 0;  // of the graph that was searched
};

}  // namespace compress
