// A layer's weight seen through its encoding.
//
// The weight argument of a layer is computed in the graph from named tensors: `w` itself,
// `mul(w, mask)`, a decoding of packed codes, or any other computation without inputs. `Weight` is
// the view of it that passes use. It is found from the operators alone, so it makes no difference
// whether Lathe, or Python, or anyone else wrote the graph.

#pragma once

#include "compress/encoding.h"
#include "compress/model.h"
#include "compress/options.h"
#include "compress/selector.h"

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace compress {

/// One place where a weight is used.
struct WeightUse {
  Node* layer = nullptr;                  ///< null: an output of a set of tensors
  size_t argument = 0;                    ///< index of the layer's argument, or of the output
  int64_t output_dim = 0, input_dim = 1;  ///< dimensions of the weight (see Weight)
};

class Weight {
 public:
  /// The name of the tensor, also after it was replaced by codes: `layer1.0.conv1.weight`.
  const std::string& name() const { return name_; }
  const std::vector<std::string>& aliases() const { return aliases_; }
  /// All layers that use it; a tied weight has several. Never empty.
  const std::vector<WeightUse>& uses() const { return uses_; }
  /// The first layer that is not an embedding, else the first; null in a set of tensors.
  Node* layer() const { return uses_[main_use_].layer; }
  OperatorKind kind() const;
  /// Where the layer stands in the module tree; for a set of tensors the name without its last
  /// part.
  std::string module_path() const;
  /// The effective weight's value in the graph, which the layers use (or transpose).
  Value* value() const { return value_; }

  const std::vector<int64_t>& sizes() const { return sizes_; }
  int64_t elements() const;
  c10::ScalarType dtype() const { return dtype_; }
  /// The dimension of output channels: 0 as a rule, 1 of transposed convolutions and of [in, out]
  /// matrices; rows of an embedding.
  int64_t output_dim() const { return uses_[main_use_].output_dim; }
  /// The dimension of input channels (of one group in a grouped convolution).
  int64_t input_dim() const { return uses_[main_use_].input_dim; }
  /// The groups of a convolution, else 1.
  int64_t groups() const;

  /// The tensor whose elements stand behind the weight as they are, with or without a mask; null
  /// when it is decoded or computed.
  const NamedTensor* stored() const { return stored_; }
  bool is_quantized() const { return quantized_.has_value(); }
  /// Codes and scales, without a mask that may lie above them.
  const std::optional<QuantizedTensor>& quantized() const { return quantized_; }
  /// The mask (bool, the weight's sizes); undefined if there is none.
  at::Tensor mask() const;
  /// The weight that the layers see, as a tensor without gradient; shares memory with the model
  /// if nothing has to be computed.
  at::Tensor effective() const;
  /// What it is made of, for tables: `f32`, `f32 mask`, `int4 group:128`, `uint4 channel`,
  /// `computed`.
  std::string encoding() const;
  /// The names of all tensors that it is computed from; constants that decodings share included.
  std::vector<std::string> sources() const;
  /// Bits of all tensors that it is computed from, as they are stored.
  int64_t bits_on_disk() const;

  /// Zeroes the elements where `keep` (bool, the weight's sizes) is false, on top of those masked
  /// before, by a mask tensor `<name>_mask`. Returns how many elements were masked newly; if none,
  /// the graph stays as it is.
  int64_t set_mask(const at::Tensor& keep);
  /// Puts a quantized tensor in the place of the weight and its mask.
  void encode(const QuantizedTensor& quantized);
  /// Puts plain elements in the place of the weight, its encoding and its mask.
  void replace(const at::Tensor& elements);
  /// Changes the elements under the mask; only if `stored()`.
  void set_stored(const at::Tensor& elements);

 private:
  friend class WeightFinder;
  void look_through();
  Node* first_user() const;
  void put(Value* with);
  void drop(Value* unused);

  Model* model_ = nullptr;
  Value* value_ = nullptr;
  std::string name_;
  std::vector<std::string> aliases_;
  std::vector<WeightUse> uses_;
  size_t main_use_ = 0;
  std::vector<int64_t> sizes_;
  c10::ScalarType dtype_ = c10::ScalarType::Float;
  NamedTensor* stored_ = nullptr;
  Node* mask_node_ = nullptr;
  Value* mask_value_ = nullptr;
  std::optional<QuantizedTensor> quantized_;
};

/// The weights of a model in the order of the layers that use them first: floating-point arguments
/// of two dimensions or more of convolutions, linear layers, matrix products, embeddings and
/// recurrent layers that depend on named tensors only. Of a set of tensors: all such tensors.
std::vector<Weight> weights(Model& model);
const std::vector<Weight> weights(const Model& model);
/// Those that the selector matches.
std::vector<Weight> weights(Model& model, const Selector& where);

/// What a selector looks at.
SelectorTarget selector_target(const Weight& weight);
std::vector<SelectorTarget> selector_targets(const Model& model);

/// Weights that share one threshold or one budget.
struct WeightSet {
  std::string name;  ///< the weight's, the layer's, or empty for the model
  std::vector<Weight*> weights;
  int64_t elements() const;
};
/// Divides weights into sets; the pointers are into `all`.
std::vector<WeightSet> weight_sets(std::vector<Weight>& all, Scope scope);

}  // namespace compress
