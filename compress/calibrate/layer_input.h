// What reaches a layer, as the matrix that its weight is multiplied with.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace compress {

class Node;
class Value;

/// Whether `layer_input_matrix` knows the operator: linear layers, `addmm`, `mm`, `matmul` with the
/// weight on the right, and convolutions of one to three dimensions that are not transposed.
bool has_layer_input_matrix(const Node& layer);

/// The activation that enters the layer.
Value* layer_input(const Node& layer);

/// The rows that the weight of `layer` is multiplied with, [groups, rows, columns]: a batch of
/// inputs of a linear layer, all patches of a convolution. The columns are those of
/// `as_matrix(weight, output_dim)`, so that of group g
/// `output[g] = matrix[g].matmul(as_matrix(weight)[rows of g].t())` up to the bias. Floating, dtype
/// of `input`.
at::Tensor layer_input_matrix(const Node& layer, const at::Tensor& input);

/// Sum of outer products of those rows, double [groups, columns, columns], and how many there were.
/// Patches are made a few samples at a time, in bounded memory.
struct Gram {
  at::Tensor sum;
  int64_t rows = 0;
  void add(const Node& layer, const at::Tensor& input);
  /// Products z x^T of the rows of two inputs, z those of `left`; of one size.
  void add(const Node& layer, const at::Tensor& left, const at::Tensor& input);
  at::Tensor mean() const;
};

}  // namespace compress
