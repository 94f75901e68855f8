// The law of coupled channels: a model whose channels are zeroed computes what it computes when
// they are removed.

#pragma once

#include "compress/graph/channels.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace compress::testing {

/// Gives parameters and buffers whose elements are all equal (fresh biases and batch norms) random
/// ones: with zeros and ones much would hold by accident.
void randomise_constants(Model& model, uint64_t seed);

/// Inputs of the model's types: normal floats, integers of 0 and 1, true flags.
std::vector<at::Tensor> random_inputs(const Model& model, int64_t batch, uint64_t seed);

/// A share of each group's units, at least one where that leaves something; `inexact` ones, too.
ChannelSet choose_channels(const ChannelGroups& groups, double share, bool inexact, uint64_t seed);

/// The model with every index of `set` zeroed in every dimension of every floating tensor, and in
/// what is computed from tensors alone. Running variances stay: dividing by zero helps nobody.
Model zeroed(const Model& model, const ChannelGroups& groups, const ChannelSet& set);

/// The largest difference over the largest element; infinite for other sizes or numbers.
double difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b);

/// The same, but statistics, norms and products of activations see only the channels that stay:
/// what removing gives where zeroing is inexact. `groups` are those of `model`, which is used up.
Model zeroed_with_survivors(Model model, const ChannelGroups& groups, const ChannelSet& set);

struct LawOptions {
  double share = 0.4;    ///< of each group's units
  bool inexact = false;  ///< inexact units go, too; the reference is then `zeroed_with_survivors`
  uint64_t seed = 1;
  double tolerance = 1e-4;
};

struct LawReport {
  size_t groups = 0, exact_groups = 0, units = 0;
  double moved = 0;  ///< how far zeroing moved the output; 0 if nothing could be removed
  double error = 0;  ///< between the zeroed model and the smaller one, the worst of all batch sizes
  double kept_parameters = 1;
  double analysis_ms = 0, removal_ms = 0;
};

/// Removes a share of the units and compares with the zeroed model, at two batch sizes where the
/// batch is free and only exact units go. Fails the test where the outputs, sizes, counted costs or
/// the graph are wrong.
LawReport check_channel_law(Model model, const LawOptions& options = {});

}  // namespace compress::testing
