// Reads tests/golden/distillation.json, which Python's torch computed.

#pragma once

#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include <fstream>
#include <vector>

namespace compress::testing {

inline const nlohmann::json& distillation_golden() {
  static const nlohmann::json golden = [] {
    std::ifstream file(source_dir() / "tests/golden/distillation.json");
    return nlohmann::json::parse(file);
  }();
  return golden;
}

/// A tensor of the file: double, or int64 where all of its numbers are whole.
inline at::Tensor golden_tensor(const nlohmann::json& packed) {
  const auto sizes = packed.at("sizes").get<std::vector<int64_t>>();
  const nlohmann::json& data = packed.at("data");
  if (!data.empty() && data[0].is_number_integer()) {
    return at::tensor(data.get<std::vector<int64_t>>(), at::kLong).reshape(sizes);
  }
  return at::tensor(data.get<std::vector<double>>(), at::kDouble).reshape(sizes);
}

/// Greatest absolute difference.
inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace compress::testing
