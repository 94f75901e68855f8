// A model: a graph and the named tensors that it computes with.

#pragma once

#include "compress/graph/graph.h"

#include <ATen/core/Tensor.h>

#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace compress {

class Interpreter;

enum class TensorRole {
  kParameter,  ///< trained
  kBuffer,     ///< state that is saved (running_mean, masks, codes)
  kConstant,   ///< lifted from the code of the forward function, or a buffer that is not saved
};

/// A parameter, buffer or constant. Ties are one tensor with several names.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;  ///< undefined when only a digest of it was read (text form)
  TensorRole role = TensorRole::kParameter;
  std::vector<std::string> aliases;  ///< the other names of a tied tensor
  std::string digest;                ///< as read from text; `tensor` is then undefined, else empty
};

/// A network: its graph, its named tensors, and text that travels with it.
///
/// A bare set of tensors (a state_dict without an architecture) is a model too: its graph has no
/// inputs and returns every tensor under its name, so that passes treat both alike.
class Model {
 public:
  Model();
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  /// A deep copy of the graph; tensors are shared until `deep` is true.
  Model clone(bool deep = true) const;

  Graph& graph() { return graph_; }
  const Graph& graph() const { return graph_; }

  /// Adds a tensor with its value in the graph. Throws Error(kInvalidArgument) if the name is
  /// taken.
  Value* add_tensor(const std::string& name, at::Tensor tensor, TensorRole role);
  /// Gives a tensor a second name (tied weights). Throws Error(kInvalidArgument) if it is taken.
  void add_alias(std::string_view name, const std::string& alias);
  /// Removes a tensor that the graph does not use.
  void remove_tensor(std::string_view name);
  /// Finds by name or alias; null if there is none.
  const NamedTensor* find_tensor(std::string_view name) const;
  NamedTensor* find_tensor(std::string_view name);
  /// The tensor of that name or alias; throws Error(kInvalidArgument) with the nearest name.
  const at::Tensor& tensor(std::string_view name) const;
  /// Puts another tensor in the place of `name`'s (any dtype and sizes); keeps its role.
  void set_tensor(std::string_view name, at::Tensor tensor);
  /// In the order in which they were added.
  const std::list<NamedTensor>& tensors() const { return tensors_; }
  std::list<NamedTensor>& mutable_tensors() { return tensors_; }
  /// The parameters, for an optimizer.
  std::vector<at::Tensor> parameters() const;
  /// Drops dead nodes and the tensors that no node, output or update uses any more.
  void remove_dead();
  /// Whether this is a bare set of tensors: no inputs, no operators but those of encodings.
  bool is_tensor_set() const { return graph_.inputs().empty(); }

  /// Runs the graph. Inputs in the graph's order; returns its tensor outputs in order. Autograd,
  /// autocast and device follow LibTorch's rules of the calling thread.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& inputs) const;
  /// The compiled form of the present graph, for runs that watch values on the way.
  Interpreter& interpreter() const;

  /// Flips the mode argument of every node that has one (batch_norm, dropout, rnn, attention).
  void train();
  void eval();

  /// Moves every tensor.
  void to(c10::Device device);
  /// Where its tensors are (the first one's; of a model without tensors the CPU).
  c10::Device device() const;

  /// Free text that travels with the model: `lathe.provenance`, format versions, class names.
  std::map<std::string, std::string> metadata;
  /// What an importer found worth saying ("batch size 1 is baked in: ..."); shown by the tools.
  std::vector<std::string> notes;

 private:
  void forget(NamedTensor* tensor);

  Graph graph_;
  std::list<NamedTensor> tensors_;
  std::unordered_map<std::string, NamedTensor*> by_name_;
  mutable std::unique_ptr<Interpreter> interpreter_;
};

}  // namespace compress
