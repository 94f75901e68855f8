// What a model costs: parameters, multiply-accumulates, bits.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace compress {

class Weight;

/// One layer with a weight, or one product of activations without.
struct LayerCost {
  std::string name;            ///< the weight's tensor; for products of activations the node
  std::string module_path;     ///< may be empty
  std::string op;              ///< `conv2d`; `tensor` in a bare set of tensors
  std::vector<int64_t> sizes;  ///< of the weight; empty without one
  std::string encoding;        ///< `f32`, `f32 mask`, `int4 group:128`, ...
  int64_t elements = 0;        ///< of the weight; 0 for the second use of a tied one
  int64_t nonzeros = 0;        ///< elements of the effective weight that are not zero
  std::optional<double> macs;  ///< multiply-accumulates a sample
  int64_t bits_on_disk = 0;    ///< of all tensors that the weight is computed from
};

/// Figures of a model. Sparsity lowers `nonzeros`, not `macs`: a multiplication by a stored zero is
/// still done.
struct ModelCost {
  std::vector<LayerCost> layers;  ///< in the order of the graph
  int64_t parameters = 0;  ///< all weights, biases, norms; codes count as the weight they encode
  int64_t nonzeros = 0;    ///< of all parameters
  int64_t weight_elements = 0;  ///< of the layers' weights only
  int64_t weight_nonzeros = 0;
  std::optional<double> macs;  ///< a sample; unknown for a set of tensors
  int64_t payload_bytes = 0;   ///< of all named tensors as they would be stored
  double bits_per_weight = 0;  ///< bits on disk of the layers' weights over their elements

  /// Share of zeros among the layers' weights, and among all parameters.
  double weight_sparsity() const;
  double sparsity() const;
};

/// Adds up a model's cost. MACs come from the sizes that the graph's values have; where they are
/// not known the model runs once on one example. Convolutions, linear layers, matrix products,
/// attention and recurrent layers count, as papers do; biases, norms and activations do not.
/// Weights that are mapped from a file are read in pieces, so memory stays small.
ModelCost measure_cost(const Model& model);

/// Elements that are not zero, read in pieces that are given back to a mapped file.
int64_t count_nonzeros(const at::Tensor& tensor);
/// The same of the effective weight; masks and codes are looked at a few rows at a time.
int64_t count_nonzeros(const Weight& weight);

}  // namespace compress
