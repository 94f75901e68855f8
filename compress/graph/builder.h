// A thin layer for writing networks in C++: the graph that torch.export would give, by hand.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// How a tensor of a new network gets its first values.
struct Init {
  enum class Kind {
    kConstant,  ///< every element is `value`
    kUniform,   ///< uniform in [-value, value)
    kNormal,    ///< normal with standard deviation `value`
  };
  Kind kind = Kind::kConstant;
  double value = 0;

  static Init constant(double value) { return {Kind::kConstant, value}; }
  static Init uniform(double bound) { return {Kind::kUniform, bound}; }
  static Init normal(double deviation) { return {Kind::kNormal, deviation}; }
};

/// A network whose tensors have names, dtypes and sizes but no memory yet (they are on the Meta
/// device): `initialize` gives them fresh values, `zoo::load_into` those of a file.
struct Blueprint {
  Model model;
  std::vector<std::pair<std::string, Init>> inits;  ///< in the order of `model.tensors()`
};

/// Gives every tensor of the blueprint memory and its first values. The same seed gives the same
/// values, whatever the number of threads.
Model initialize(Blueprint blueprint, uint64_t seed);

/// A square convolution.
struct ConvOptions {
  int64_t kernel = 3;
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t groups = 1;
  bool bias = false;
};

/// Builds a graph call by call. Layers take their name, relative to the current scope, and create
/// their tensors under it (`layer1.0` + `conv1` -> `layer1.0.conv1.weight`).
class GraphBuilder {
 public:
  /// Substrings of tensor names to replace, in this order, as each tensor is created: the same
  /// network under the key names of another repository.
  using Renames = std::vector<std::pair<std::string, std::string>>;

  explicit GraphBuilder(Renames renames = {}) : renames_(std::move(renames)) {}

  /// `name` with every replacement made.
  static std::string renamed(std::string name, const Renames& renames);

  /// Enters a module; left when the returned object dies.
  class Scope {
   public:
    Scope(GraphBuilder& builder, const std::string& name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    GraphBuilder& builder_;
    size_t length_before_;
  };
  [[nodiscard]] Scope scope(const std::string& name) { return Scope(*this, name); }
  [[nodiscard]] Scope scope(int64_t index) { return Scope(*this, std::to_string(index)); }

  Value* input(const std::string& name, c10::ScalarType dtype, std::vector<Dim> sizes);
  /// A float parameter or buffer of the current scope.
  Value* parameter(const std::string& name, const std::vector<int64_t>& sizes, Init init);
  Value* buffer(const std::string& name, const std::vector<int64_t>& sizes, Init init);
  /// Gives the tensor of `value` a second name (a tie), relative to the current scope.
  void tie(const Value* value, const std::string& name);

  /// Any operator, by its name and its leading arguments; see `Graph::Call` for the rest.
  Value* call(const std::string& op, std::vector<Argument> arguments,
              std::map<std::string, Argument> keywords = {});
  /// An operator that returns a list of `count` tensors.
  std::vector<Value*> call_list(const std::string& op, std::vector<Argument> arguments,
                                size_t count);

  /// `[batch, in, h, w]` -> `[batch, out, h', w']`; LibTorch's default initialisation.
  Value* conv(Value* x, const std::string& name, int64_t in, int64_t out, ConvOptions options);
  /// In inference mode; `train()` of the model flips it.
  Value* batch_norm(Value* x, const std::string& name, int64_t channels);
  Value* layer_norm(Value* x, const std::string& name, int64_t width, double eps, bool bias = true);
  Value* linear(Value* x, const std::string& name, int64_t in, int64_t out, bool bias = true);
  Value* embedding(Value* indices, const std::string& name, int64_t count, int64_t width);
  Value* relu(Value* x) { return call("aten::relu", {x}); }
  Value* add(Value* a, Value* b) { return call("aten::add.Tensor", {a, b}); }
  Value* cat(const std::vector<Value*>& parts, int64_t dim);
  Value* dropout(Value* x, double p) { return call("aten::dropout", {x, p, false}); }
  Value* max_pool(Value* x, int64_t kernel, int64_t stride, int64_t padding = 0);
  Value* avg_pool(Value* x, int64_t kernel);
  /// Mean over height and width: `[batch, c, h, w]` -> `[batch, c]`.
  Value* global_average(Value* x);
  /// `[batch, ...]` -> `[batch, product]`.
  Value* flatten(Value* x) { return call("aten::flatten.using_ints", {x, 1}); }
  /// The size of a dimension, as a scalar value.
  Value* size(Value* x, int64_t dim) { return call("aten::sym_size.int", {x, dim}); }
  /// Attention of query, key, value, each `[batch, tokens, width]`, split into `heads`; returns
  /// `[batch, tokens, width]`.
  Value* attention(Value* query, Value* key, Value* value, int64_t width, int64_t heads,
                   bool causal);

  /// The finished network. The builder is empty afterwards.
  Blueprint finish(std::vector<Output> outputs);

 private:
  std::string full_name(const std::string& name) const;
  Value* tensor(const std::string& name, const std::vector<int64_t>& sizes, Init init,
                TensorRole role);
  Argument bias_if(bool present, int64_t size, Init init);

  Blueprint blueprint_;
  Renames renames_;
  std::string path_;
};

}  // namespace compress
