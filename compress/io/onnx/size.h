// A size in the graph: known now, or computed when the network runs.

#pragma once

#include "compress/graph/size_expression.h"

#include <cstdint>
#include <optional>
#include <string>

namespace compress::onnx {

struct Size {
  int64_t number = 0;
  std::string name;  ///< of an int64 [1] tensor; empty: the number counts

  Size() = default;
  Size(int64_t known) : number(known) {}
  explicit Size(std::string computed) : name(std::move(computed)) {}
  bool is_known() const { return name.empty(); }
};

}  // namespace compress::onnx
