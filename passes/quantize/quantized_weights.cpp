// Figures of the quantizing passes.

#include "passes/quantize/quantized_weights.h"

#include "compress/encoding.h"

#include <fmt/format.h>

namespace compress {

std::string unless_quantized(const Weight& weight) {
  return weight.is_quantized() ? fmt::format("it is quantized already ({})", weight.encoding())
                               : std::string();
}

void leave_alone(const Weight& weight, const std::string& reason, PassContext& context) {
  context.message(fmt::format("{}: left alone, {}", weight.name(), reason));
  context.count("weights_left_alone");
}

void QuantizedWeights::encode(Weight& weight, const QuantizedTensor& codes) {
  weight.encode(codes);
  elements_ += weight.elements();
  bits_ += codes.bits_on_disk();
}

void QuantizedWeights::report(PassContext& context) const {
  context.count("weights_quantized", elements_);
  if (!any()) return;
  context.measure("bits_per_weight", static_cast<double>(bits_) / static_cast<double>(elements_));
}

}  // namespace compress
