// Where in a graph the quantizers of activations stand.

#pragma once

#include "compress/graph/graph.h"
#include "compress/weight.h"
#include "passes/quantize/activation_grid.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// A place that shall see a value rounded.
struct ActivationRead {
  Node* node = nullptr;
  size_t argument = 0;
  int bits = 8;
  std::string module_path;  ///< of the layer that asked; names the quantizer's buffers
};

/// One quantizer: a value and all that read it rounded.
struct ActivationSite {
  Value* value = nullptr;
  int bits = 8;
  std::vector<ActivationRead> reads;  ///< in the order of the graph
};

/// Which argument of a layer with a weight is the activation; null for embeddings, recurrent layers
/// and layers whose other factor is a named tensor too.
Value* activation_of(const WeightUse& use, size_t* argument = nullptr);
/// The places where the layers of a weight read their input.
std::vector<ActivationRead> layer_reads(const Weight& weight, int bits);

/// Which operands of a residual add are rounded.
enum class AddOperands {
  kBoth,      ///< for engines that add two tensors of codes
  kShortcut,  ///< not what a convolution gives: for engines that add in its accumulator
};
inline std::vector<std::string_view> option_names(AddOperands) { return {"both", "shortcut"}; }

/// Operands and results of the residual adds behind convolutions, so that integers go around a
/// block without a detour: adds of two activations, one of them the output, maybe normalised, of a
/// convolution among `layers`, which the add alone reads. The result is the value behind a ReLU,
/// where one follows.
std::vector<ActivationRead> residual_reads(const Graph& graph,
                                           const std::vector<const Node*>& layers, int bits,
                                           AddOperands operands = AddOperands::kBoth);

/// One quantizer a value and width for all those reads, in the order of the graph. Reads behind
/// operators that only move elements, or take the greatest, are served in front of them when all
/// who use them ask for the same width. Values that are rounded already are left out.
std::vector<ActivationSite> activation_sites(const Graph& graph,
                                             const std::vector<ActivationRead>& reads);

/// Puts `with`, whose producer stands in front of them, in the place of the site's value.
void redirect(Graph& graph, const ActivationSite& site, Value* with);

/// `value` on a grid, by `aten::fake_quantize_per_tensor_affine` in front of `before`.
Value* fake_quantize(Graph& graph, Node* before, Value* value, const ActivationGrid& grid);
/// The same for all reads of a site.
void fake_quantize(Graph& graph, const ActivationSite& site, const ActivationGrid& grid);

}  // namespace compress
