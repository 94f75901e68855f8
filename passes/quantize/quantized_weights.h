// What the quantizing passes share: the weights that they leave alone, and the figures they report.

#pragma once

#include "compress/pass_context.h"
#include "compress/weight.h"

#include <cstdint>
#include <string>

namespace compress {

struct QuantizedTensor;

/// Why a weight that is codes already is left alone, as the end of a sentence; else empty.
std::string unless_quantized(const Weight& weight);
/// Says that a weight is left alone, and counts it (`weights_left_alone`).
void leave_alone(const Weight& weight, const std::string& reason, PassContext& context);

/// Puts codes in the place of weights and adds up what they take.
class QuantizedWeights {
 public:
  void encode(Weight& weight, const QuantizedTensor& codes);

  int64_t elements() const { return elements_; }
  bool any() const { return elements_ > 0; }
  /// `weights_quantized`, and `bits_per_weight` on disk if there are any.
  void report(PassContext& context) const;

 private:
  int64_t elements_ = 0, bits_ = 0;
};

}  // namespace compress
