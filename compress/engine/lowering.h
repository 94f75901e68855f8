// From a graph to a program: which kernel each operator gets, and what is fused into it.

#pragma once

#include "compress/engine/lower.h"
#include "compress/engine/program.h"
#include "compress/weight.h"

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace compress::engine {

/// Lowers the graph of a specialized model (specialize.h).
///
/// A layer takes along what follows it while nothing else reads the value in between: batch norm
/// into its weights, activations, the sum of a residual connection, and the quantizer behind them.
/// Layers that read codes and have symmetric codes for a weight compute on integers; operators
/// without a kernel run through LibTorch in float.
class Lowering {
 public:
  Lowering(const Model& model, const Arithmetic& arithmetic);
  Program run();

 private:
  // A layer with what has been fused into it so far.
  struct Chain {
    const Value* end = nullptr;
    std::vector<const Node*> nodes;
    size_t source = 0;           // slot that the layer reads
    bool integers = false;       // computes on codes
    bool channels_last = false;  // order of its output
    at::Tensor factor, shift;    // of a batch norm
    std::vector<PostOp> post;    // in units of the value
    double rounded_unit = 0;     // the scale of a quantizer in front of the sum; 0: there is none
    std::optional<size_t> sum;
    bool float_output = false;  // since it is added to floats
    std::optional<Grid> grid;   // of the output
  };

  void lower(const Node& node);
  bool lower_by_kernel(const Node& node);
  bool lower_convolution(const Node& node);
  bool lower_linear(const Node& node);
  bool lower_pool(const Node& node);
  bool lower_global_average(const Node& node);
  bool lower_crop(const Node& node);
  bool lower_view(const Node& node);
  bool lower_quantizer(const Node& node);
  bool lower_activation(const Node& node);
  bool lower_binary(const Node& node);
  bool lower_layer_norm(const Node& node);
  bool lower_batch_norm(const Node& node);
  bool lower_softmax(const Node& node);
  bool lower_concat(const Node& node);

  // Fusion (fuse.cpp).
  Chain grow(const Node& layer, size_t source, bool integers, bool channels_last);
  bool take(const Node& next, Chain& chain);
  bool has_constant_statistics(const Node& norm) const;
  void take_batch_norm(const Node& norm, Chain& chain) const;
  bool take_quantizer(const Node& node, const Grid& grid, Chain& chain);
  bool take_sum(const Node& add, Chain& chain);
  bool can_sum(const Node& add, const Chain& chain);
  bool make_available(const Value* value);
  bool depends_on_chain(const Value* value) const;
  std::optional<Grid> grid_behind(const Value* value) const;
  Step layer_step(const Node& layer, Affine affine, Chain& chain, bool padded);
  void emit_layer(Step step, const Chain& chain);

  // Weights as codes (codes.cpp).
  bool sums_fit(const at::Tensor& codes, const Grid& source);
  std::optional<Affine> integer_weights(const Node& layer, const Grid& source);
  std::optional<PackedLinear> packed_weights(const Node& layer, int64_t rows) const;

  // Values and slots (slots.cpp).
  const Node* only_user(const Value* value) const;
  bool is_constant(const Value* value) const { return constants_.contains(value); }
  at::Tensor constant(const Argument& argument) const;
  bool is_float_tensor(const Value* value) const;
  size_t slot_of(const Value* value);
  size_t new_slot(const std::string& name, std::vector<int64_t> sizes, c10::ScalarType dtype,
                  bool channels_last, std::optional<Grid> grid = std::nullopt);
  size_t output_slot(const Value* value, std::optional<Grid> grid, bool channels_last);
  size_t alias_slot(const Value* value, size_t slot, bool channels_last);
  /// The value as floats (of `Arithmetic::float_type`), in channels-last order if it has four
  /// dimensions and `channels_last`.
  size_t as_float(const Value* value, bool channels_last = true);
  /// The slot's codes or floats, in channels-last order if they have four dimensions.
  size_t in_order(size_t slot, bool channels_last);
  size_t reordered(size_t slot, bool channels_last, c10::ScalarType dtype,
                   std::optional<Grid> grid);
  size_t quantized(size_t slot, const Grid& grid, const std::string& name);
  bool is_awaited(size_t slot) const;
  bool dies_at(size_t slot, const Node& user) const;
  void bind(const Value* value, size_t slot);
  void emit(Step step);
  void flush();
  bool wants_channels_last(const Value* value) const;

  const Model& model_;
  const Arithmetic arithmetic_;
  const UseMap uses_;
  const std::vector<Weight> weights_;
  std::unordered_map<const Node*, const Weight*> weight_of_;
  Program program_;
  std::unordered_set<const Value*> constants_;
  std::unordered_map<const Value*, size_t> slots_;
  std::vector<std::vector<const Value*>> values_of_buffer_;
  std::map<std::tuple<size_t, bool, c10::ScalarType>, size_t> reordered_;
  std::unordered_set<const Node*> done_, in_chain_;
  std::vector<size_t> sources_;       // slots that layers whose chains are open will read
  std::vector<const Node*> pending_;  // to run through LibTorch
  std::unordered_set<const Value*> pending_values_;  // what they compute
};

/// The activation that a node computes, as a post-op.
std::optional<PostOp> activation_of(const Node& node);
/// The grid of a quantizer with constant parameters of eight bits or fewer.
std::optional<Grid> grid_of(const Node& node);
/// Numbers of a constant argument; one number where the operator has two dimensions counts twice.
std::vector<int64_t> pair_of(const Argument& argument);
/// Sizes of a value of a specialized model.
std::vector<int64_t> sizes_of(const Value* value);

}  // namespace compress::engine
