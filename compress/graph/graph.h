// The graph of a model: straight-line SSA over ATen operators.
//
// A graph owns its nodes and values; pointers to them stay valid until they are erased. It knows
// nothing of tensors' contents: a parameter or buffer is a value that has the name of one of the
// model's named tensors (compress/model.h).

#pragma once

#include "compress/graph/argument.h"

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace c10 {
struct FunctionSchema;  // in <ATen/core/function_schema.h>
}

namespace compress {

class Graph;
class Node;

/// A dimension: a number, or a symbol such as `batch` or `4*s77`. `size` is then the size that it
/// had in the example the graph was recorded from (0 when unknown).
struct Dim {
  int64_t size = 0;
  std::string symbol;

  Dim() = default;
  Dim(int64_t fixed) : size(fixed) {}
  Dim(std::string name, int64_t example) : size(example), symbol(std::move(name)) {}
  bool is_symbolic() const { return !symbol.empty(); }
  friend bool operator==(const Dim& a, const Dim& b) {
    return a.symbol == b.symbol && (a.is_symbolic() || a.size == b.size);
  }
};

/// What a value is at run time. The three scalars are sizes and numbers computed from sizes. There
/// are no lists: an operator that returns a list has one output value for each element.
enum class ValueKind { kTensor, kInt, kFloat, kBool };

/// dtype and sizes of a tensor, each unknown until shapes were propagated.
struct TensorType {
  std::optional<c10::ScalarType> dtype;
  std::optional<std::vector<Dim>> sizes;
};

/// A value: an input of the graph, a named tensor, or an output of a node.
class Value {
 public:
  const std::string& name() const { return name_; }
  ValueKind kind() const { return kind_; }
  /// The node that computes the value; null for inputs and named tensors.
  Node* producer() const { return producer_; }
  /// Which output of its producer this is.
  size_t output_index() const { return output_index_; }
  bool is_input() const { return role_ == Role::kInput; }
  /// The value of a parameter, buffer or constant; `name()` is the tensor's name.
  bool is_named_tensor() const { return role_ == Role::kNamedTensor; }

  TensorType type;

 private:
  friend class Graph;
  enum class Role { kInput, kNamedTensor, kResult };
  std::string name_;
  ValueKind kind_ = ValueKind::kTensor;
  Role role_ = Role::kResult;
  Node* producer_ = nullptr;
  size_t output_index_ = 0;
  std::list<Value>::iterator position_;
};

/// A call of an operator.
class Node {
 public:
  /// The operator: `aten::conv2d`, `aten::add.Tensor`; `scalar::mul` and the like compute on sizes.
  const std::string& op() const { return op_; }
  /// The operator's schema; null for `scalar::` operators and for operators this process lacks.
  const c10::FunctionSchema* schema() const { return schema_; }
  /// All arguments of the schema in its order, keyword-only ones and defaults included.
  const std::vector<Argument>& arguments() const { return arguments_; }
  const std::vector<Value*>& outputs() const { return outputs_; }
  /// The first output; most operators have one.
  Value* output() const { return outputs_.at(0); }
  /// The position of the argument that the schema calls `name`, if it has one.
  std::optional<size_t> argument_index(std::string_view name) const;
  /// The argument that the schema calls `name`; throws std::out_of_range when there is none.
  const Argument& argument(std::string_view name) const;
  bool has_argument(std::string_view name) const { return argument_index(name).has_value(); }

  /// Where in the module tree the node comes from (`layer1.0.conv1`); may be empty.
  std::string module_path;

 private:
  friend class Graph;
  std::string op_;
  const c10::FunctionSchema* schema_ = nullptr;
  std::vector<Argument> arguments_;
  std::vector<Value*> outputs_;
  std::list<Node>::iterator position_;
};

/// Something a graph returns under a name, or the new content of a buffer.
struct Output {
  std::string name;  ///< name of the output, or of the buffer that is updated
  Argument value;    ///< a value, a constant, or none
  friend bool operator==(const Output&, const Output&) = default;
};

/// Where a value is used: an argument of a node, an output, or an update of a buffer.
struct Use {
  Node* node = nullptr;  ///< null when an output or an update uses the value
  size_t index = 0;      ///< index of the argument, of the output or of the update
  bool is_update = false;
};

/// All uses of all values, gathered once; later edits are not seen.
class UseMap {
 public:
  explicit UseMap(const Graph& graph);
  const std::vector<Use>& of(const Value* value) const&;
  std::vector<Use> of(const Value* value) && { return std::as_const(*this).of(value); }
  /// The first node, in the graph's order, that uses the value; null if none does.
  Node* first_node(const Value* value) const;

 private:
  std::unordered_map<const Value*, std::vector<Use>> uses_;
};

class Graph {
 public:
  Graph() = default;
  Graph(Graph&&) noexcept = default;
  Graph& operator=(Graph&&) noexcept = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// A deep copy; `copied`, if given, receives the copy of every value.
  Graph clone(std::unordered_map<const Value*, Value*>* copied = nullptr) const;

  /// Appends an input. Names are made unique by a suffix `_1`, `_2`, ... here and below.
  Value* add_input(std::string name, TensorType type, ValueKind kind = ValueKind::kTensor);
  /// Adds the value of a named tensor; the name must be free.
  Value* add_named_tensor(const std::string& name, TensorType type);
  /// Removes a named tensor's value, which nothing may use any more.
  void erase_named_tensor(Value* value);
  void rename(Value* value, const std::string& name);

  /// What to add: missing trailing arguments get the schema's defaults.
  struct Call {
    std::string op;
    std::vector<Argument> arguments;
    std::map<std::string, Argument> keywords;  ///< arguments by name, after the positional ones
    std::string name;                          ///< of the (first) output; empty: from the operator
    size_t list_size = 1;                      ///< outputs of an operator that returns a list
    std::string module_path;
  };
  /// Adds a call in front of `before`, or at the end when that is null, with one output a return of
  /// the schema. Throws Error(kUnsupported) for an operator that this process does not know, and
  /// Error(kInvalidArgument) for arguments that do not fit the schema's names or number.
  Node* insert(Node* before, Call call);
  Node* append(Call call) { return insert(nullptr, std::move(call)); }
  /// As above for importers: names and kinds of the outputs are given, an unknown operator is kept
  /// (schema() is null), arguments are taken as they are.
  Node* insert_raw(Node* before, std::string op, std::vector<Argument> arguments,
                   const std::vector<std::pair<std::string, ValueKind>>& outputs);
  /// Removes a node whose outputs nothing uses.
  void erase(Node* node);

  void set_argument(Node* node, size_t index, Argument argument);
  void set_argument(Node* node, std::string_view name, Argument argument);
  /// Changes which operator a node calls; the arguments must fit the new schema.
  void set_op(Node* node, const std::string& op);
  /// Puts `with` in the place of `value` in every use except those of node `except`.
  void replace_uses(Value* value, Value* with, const Node* except = nullptr);
  /// Removes nodes without effect and named-tensor values without a use; returns their names.
  std::vector<std::string> remove_dead();

  const std::list<Node>& nodes() const { return nodes_; }
  std::list<Node>& nodes() { return nodes_; }
  const std::vector<Value*>& inputs() const { return inputs_; }
  /// Values of named tensors, in the order in which they were added.
  const std::vector<Value*>& named_tensors() const { return named_tensors_; }
  /// What the graph returns, in order.
  const std::vector<Output>& outputs() const { return outputs_; }
  void set_outputs(std::vector<Output> outputs);
  /// Buffers that take a new content after each run (`num_batches_tracked`, caches).
  const std::vector<Output>& updates() const { return updates_; }
  void set_updates(std::vector<Output> updates);

  /// The value of that name, or null.
  Value* find(std::string_view name) const;
  /// Grows with every edit; whoever has compiled the graph compares it.
  uint64_t version() const { return version_; }

 private:
  Value* new_value(std::string name, ValueKind kind, bool exact_name);
  void free_value(Value* value);

  std::list<Node> nodes_;
  std::list<Value> values_;
  std::vector<Value*> inputs_, named_tensors_;
  std::vector<Output> outputs_, updates_;
  std::unordered_map<std::string, Value*> by_name_;
  std::unordered_map<std::string, uint64_t> next_suffix_;  // so that many equal names stay cheap
  uint64_t version_ = 0;
};

/// The schema of an operator such as `aten::add.Tensor`, or null if this process lacks it.
const c10::FunctionSchema* find_schema(const std::string& op);

}  // namespace compress
