// Sizes and names of a program's parts.

#include "compress/engine/program.h"

#include <c10/core/ScalarType.h>

#include <functional>
#include <numeric>

namespace compress::engine {

int64_t Slot::elements() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

int64_t Slot::bytes() const { return elements() * static_cast<int64_t>(c10::elementSize(dtype)); }

std::vector<int64_t> Slot::strides() const {
  if (channels_last) {
    return {sizes[1] * sizes[2] * sizes[3], 1, sizes[1] * sizes[3], sizes[1]};
  }
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i > 1; --i) strides[i - 2] = strides[i - 1] * sizes[i - 1];
  return strides;
}

std::string name_of(PostOp::Kind kind) {
  switch (kind) {
    case PostOp::Kind::kSum:
      return "sum";
    case PostOp::Kind::kClip:
      return "clip";
    case PostOp::Kind::kRound:
      return "round";
    case PostOp::Kind::kLinear:
      return "linear";
    case PostOp::Kind::kRelu:
      return "relu";
    case PostOp::Kind::kGelu:
      return "gelu";
    case PostOp::Kind::kGeluTanh:
      return "gelu_tanh";
    case PostOp::Kind::kSigmoid:
      return "sigmoid";
    case PostOp::Kind::kTanh:
      return "tanh";
    case PostOp::Kind::kSilu:
      return "silu";
    case PostOp::Kind::kHardswish:
      return "hardswish";
    case PostOp::Kind::kElu:
      return "elu";
  }
  return {};
}

std::string kind_of(const Step& step) {
  struct Names {
    std::string operator()(const Convolution&) const { return "convolution"; }
    std::string operator()(const Linear&) const { return "linear"; }
    std::string operator()(const PackedLinear&) const { return "linear"; }
    std::string operator()(const Pool& pool) const {
      return pool.maximum ? "max_pool" : "average_pool";
    }
    std::string operator()(const GlobalAverage&) const { return "global_average"; }
    std::string operator()(const Crop&) const { return "crop"; }
    std::string operator()(const Reorder&) const { return "reorder"; }
    std::string operator()(const Elementwise&) const { return "elementwise"; }
    std::string operator()(const Binary& binary) const { return binary.multiply ? "mul" : "add"; }
    std::string operator()(const LayerNorm&) const { return "layer_norm"; }
    std::string operator()(const BatchNorm&) const { return "batch_norm"; }
    std::string operator()(const Softmax&) const { return "softmax"; }
    std::string operator()(const Concat&) const { return "cat"; }
    std::string operator()(const Stretch&) const { return "libtorch"; }
  };
  return std::visit(Names(), step.work);
}

}  // namespace compress::engine
