// From our graph to the JSON of an exported program.

#pragma once

#include "compress/graph/size_expression.h"
#include "compress/model.h"

#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace compress::pt2 {

/// What values are called in the file: Python identifiers, placeholders prefixed as the exporter
/// does
/// (`p_` parameters, `b_` buffers, `c_` constants).
class FileNames {
 public:
  explicit FileNames(const Model& model);
  const std::string& of(const Value* value) const { return names_.at(value); }
  /// A placeholder of its own for another name of a tied tensor.
  const std::string& of_alias(const std::string& alias) const { return aliases_.at(alias); }
  /// An unused name that begins with `wish`.
  std::string fresh(const std::string& wish);

 private:
  std::unordered_map<const Value*, std::string> names_;
  std::map<std::string, std::string> aliases_;
  std::unordered_set<std::string> taken_;
};

/// Symbols as the file spells them: `s77` stays, others (`batch`) get a free name of that form,
/// because Python tells kinds of symbols apart by their first letter.
class FileSymbols {
 public:
  explicit FileSymbols(const Model& model);
  SizeExpression to_file(const SizeExpression& expression);
  /// {"as_int": 3} or {"as_expr": ...}.
  nlohmann::json size(const Dim& dim);
  nlohmann::json size(const SizeExpression& expression);
  /// Names in the file by our names, those that differ.
  const std::map<std::string, std::string>& renamed() const { return renamed_; }
  /// Names in the file of all symbols that were used.
  const std::map<std::string, std::string>& used() const { return used_; }
  /// The expression of a dimension; nothing if it is beyond the grammar.
  static std::optional<SizeExpression> expression(const Dim& dim);

 private:
  const std::string& name_in_file(const std::string& symbol);
  std::unordered_set<std::string> taken_;
  std::map<std::string, std::string> renamed_, used_;
  std::map<std::string, int64_t> examples_;
};

/// The strings and numbers of a tensor: contiguous, on the CPU.
nlohmann::json tensor_meta(c10::ScalarType dtype, const std::vector<Dim>& sizes, bool requires_grad,
                           FileSymbols& symbols);

/// Writes nodes, values and arguments.
class GraphWriter {
 public:
  GraphWriter(const Model& model, FileNames& names, FileSymbols& symbols);

  /// All nodes, in order.
  nlohmann::json nodes();
  /// {"as_tensor": ...} of a value or constant.
  nlohmann::json argument(const Argument& argument) const;
  /// dtype and sizes of every tensor, expressions of every scalar.
  nlohmann::json tensor_values();
  nlohmann::json scalar_values(ValueKind kind);

 private:
  nlohmann::json node(const Node& node);
  nlohmann::json inputs(const Node& node) const;
  nlohmann::json foreign_inputs(const Node& node) const;
  nlohmann::json outputs(const Node& node) const;
  nlohmann::json reference(const Value* value) const;
  nlohmann::json list(const Argument::List& list, bool of_tensors) const;
  std::string module_stack(const std::string& path) const;
  void derive_scalars();
  std::optional<SizeExpression> derive(const Node& node) const;

  const Model& model_;
  FileNames& names_;
  FileSymbols& symbols_;
  nlohmann::json metadata_;
  std::unordered_map<const Value*, SizeExpression> scalars_;
};

}  // namespace compress::pt2
