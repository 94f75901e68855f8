// Where a scale per channel can move from activations into weights without changing the network.
//
// If what computes a value can be divided by s channel by channel (the weight and bias of a norm,
// the rows of a layer), and all that reads it are layers whose weights can be multiplied by s, then
// doing both changes nothing but the numbers that quantizers see. Operators in between that do the
// same to every channel, and twice as much to twice as much, make no difference: ReLU, pooling,
// dropout, views that keep the channels together.

#pragma once

#include "compress/model.h"
#include "compress/weight.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// A layer that reads the value.
struct ScaledReader {
  Weight* weight = nullptr;
  const Node* layer = nullptr;
  Value* input = nullptr;   ///< what it reads: the value, or a view or ReLU of it
  int64_t channel_dim = 0;  ///< the channels' dimension of `input`
};

/// A tensor that computes the value, and its dimension of channels.
struct DividedTensor {
  std::string name;
  int64_t dim = 0;
};

struct ScaleGroup {
  std::string name;  ///< where the value is computed: `transformer.h.0.ln_1`
  int64_t channels = 0;
  std::vector<ScaledReader> readers;   ///< in the order of the graph; never empty
  std::vector<DividedTensor> divided;  ///< the norm's or layer's tensors
  std::string obstacle;                ///< why the group cannot be scaled; empty if it can
};

/// The groups whose readers are among `selected`, in the order of the graph. Each reader is in one
/// group at most. Sizes are those that the graph knows; without them there is an obstacle.
std::vector<ScaleGroup> find_scale_groups(Model& model, std::vector<Weight>& selected);

/// Divides what computes the value by `scales` (floating, positive, [channels]) and multiplies the
/// readers' weights, each once.
void apply_scales(Model& model, const ScaleGroup& group, const at::Tensor& scales);

/// `scales` in the shape that broadcasts along dimension `dim` of a tensor of `dims` dimensions.
at::Tensor along(const at::Tensor& scales, int64_t dim, int64_t dims);

}  // namespace compress
