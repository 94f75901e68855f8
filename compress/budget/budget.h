// How small a model is to become.

#pragma once

#include "compress/options.h"

#include <cstdint>
#include <optional>
#include <string>

namespace compress {

/// One limit on what a model may cost. In a recipe {"macs": 0.5}, {"parameters": 0.3}: the share to
/// keep; {"bytes": "200 KB"}, {"latency_ms": 1.5}, {"engine_ms": 0.4}: how much there may be;
/// latencies are those of one sample through the graph, or through the inference engine.
struct Budget {
  enum class Kind { kMacs, kParameters, kBytes, kLatency, kEngineLatency };
  Kind kind = Kind::kMacs;
  double amount = 0.5;  ///< a share, bytes, or milliseconds

  static Budget macs(double share) { return {Kind::kMacs, share}; }
  static Budget parameters(double share) { return {Kind::kParameters, share}; }
  static Budget bytes(double most) { return {Kind::kBytes, most}; }
  static Budget latency_ms(double longest) { return {Kind::kLatency, longest}; }
  static Budget engine_ms(double longest) { return {Kind::kEngineLatency, longest}; }
  bool is_latency() const { return kind == Kind::kLatency || kind == Kind::kEngineLatency; }
  bool is_share() const { return kind == Kind::kMacs || kind == Kind::kParameters; }
};

/// `200 KB`, `1.5MB`, `2 GB`, `80000`: thousands, as sizes of files are given. Empty if it is none.
std::optional<int64_t> parse_bytes(const std::string& text);

/// Reads and writes budgets as options.
const OptionType& option_type(const Budget*);

}  // namespace compress
