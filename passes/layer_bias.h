// The bias of a convolution or a linear layer, as passes change it.

#pragma once

#include "compress/graph/graph.h"
#include "compress/model.h"
#include "compress/weight.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>

namespace compress {

/// Whether the layer is one with a bias argument: convolutions, `linear`, and `addmm` that scales
/// neither of its terms.
bool has_bias_argument(const Node& layer);
/// Which argument that is.
size_t bias_index(const Node& layer);

/// Why the layer's bias cannot be changed (it is computed, or has no argument for one); empty if it
/// can.
std::string bias_obstacle(const Model& model, const Node& layer);
/// The bias [output channels]; undefined if the layer has none.
at::Tensor bias_of(const Model& model, const Node& layer);
/// Gives the layer that uses `weight` another bias: in the tensor that it has, or in a new one,
/// `<module>.bias`, where it has none or shares it.
void set_bias(Model& model, Node* layer, const std::string& weight, const at::Tensor& bias);

}  // namespace compress
