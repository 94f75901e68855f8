// From the JSON graph of an exported program to our graph, in-place operators still in place.

#pragma once

#include "compress/io/pt2_json.h"
#include "compress/model.h"

#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace compress::pt2 {

/// What the names of one (sub)graph stand for.
using Scope = std::unordered_map<std::string, Argument>;

/// The operator that a target string calls: `aten::conv2d`, `aten::add.Tensor`, `scalar::mul`.
/// Empty if it is neither an operator of the dispatcher nor arithmetic on sizes.
std::string read_target(const std::string& target);

/// The target string of one of our operators; empty if Python has none.
std::string target_of(const std::string& op);

/// Path and type of every module of an `nn_module_stack` entry, outermost first.
std::vector<std::pair<std::string, std::string>> read_module_stack(const std::string& text);

/// Appends the nodes of JSON graphs to the graph of a model.
class GraphReader {
 public:
  explicit GraphReader(Model& model) : model_(model) {}

  /// Appends all nodes of `graph`. `scope` has its inputs and receives the rest.
  void append_nodes(const JsonCursor& graph, Scope& scope);
  /// What an argument means in `scope`.
  Argument read_argument(const JsonCursor& argument, const Scope& scope) const;
  /// The type of a graph's value; unknown if the file does not say.
  static TensorType type_of(const JsonCursor& graph, const std::string& name);

  /// Notes the expression of a number that the graph takes or looks up (`value` is its name here).
  void note_scalar(const JsonCursor& graph, const std::string& name, const std::string& value);

  /// Expressions of such numbers, by name.
  const nlohmann::json& scalars() const { return scalars_; }
  /// Types of modules by path, gathered on the way.
  const nlohmann::json& modules() const { return modules_; }
  /// Names and kinds of the arguments of unknown operators, by "operator/number of arguments".
  const nlohmann::json& foreign() const { return foreign_; }

 private:
  using Outputs = std::vector<std::pair<std::string, ValueKind>>;

  void append_node(const JsonCursor& graph, const JsonCursor& node, Scope& scope);
  void append_call(const JsonCursor& graph, const JsonCursor& node, const std::string& op,
                   Scope& scope);
  void inline_subgraph(const JsonCursor& graph, const JsonCursor& node, const std::string& op,
                       Scope& scope);
  void call_subgraph(const JsonCursor& subgraph, const std::vector<Argument>& operands,
                     std::vector<Argument>& results);
  std::vector<Argument> read_arguments(const JsonCursor& node, const std::string& op,
                                       const Scope& scope);
  std::vector<Argument> read_foreign_arguments(const JsonCursor& node, const std::string& op,
                                               const Scope& scope);
  Outputs read_outputs(const JsonCursor& node, const std::string& op) const;
  std::string read_module_path(const JsonCursor& node);

  Model& model_;
  nlohmann::json scalars_ = nlohmann::json::object();
  nlohmann::json modules_ = nlohmann::json::object();
  nlohmann::json foreign_ = nlohmann::json::object();
};

}  // namespace compress::pt2
