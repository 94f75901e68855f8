// From a graph of ATen operators to a graph of ONNX operators, call by call.
//
// A rule (rules.h) translates the call of one operator. It sees a `Call`: the arguments as names of
// ONNX tensors, and `emit` to add nodes. What depends on named tensors only is computed when it is
// written and stands in the file as a tensor, so masks and constant arithmetic cost nothing at run
// time; quantized weights are integers with DequantizeLinear.

#pragma once

#include "compress/encoding.h"
#include "compress/io/onnx/file.h"
#include "compress/io/onnx/size.h"
#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace compress::onnx {

/// Why a call has no translation. Collected, so that one error names all.
struct Refusal {
  std::string reason;
};

/// A weight that is written as integers.
struct EncodedWeight {
  QuantizedTensor quantized;
  std::string name;
};

class Translator {
 public:
  /// `model` must have types for all values, and must outlive what `translate` returns.
  /// `stored_names` are those of constants that should not have their value's.
  Translator(const Model& model, int opset, std::unordered_map<const Value*, EncodedWeight> weights,
             std::unordered_map<const Value*, std::string> stored_names);

  /// Throws Error(kUnsupported) listing all calls without a translation.
  OnnxModel translate();
  /// What the reader should know, after `translate`.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  friend class Call;

  void declare_inputs();
  std::unordered_set<const Node*> live_nodes();
  void translate_node(const Node& node);
  void declare_outputs();
  void drop_unused();

  std::string fresh(const std::string& wish);
  const std::string& name_of(const Value* value);
  bool is_constant(const Value* value);
  Initializer stored(const Value* value) const;
  std::string add_stored(const Value* value);
  std::string add_decoded(const EncodedWeight& weight, c10::ScalarType dtype, bool transposed);
  std::string add_initializer(Initializer tensor);
  std::string constant(const at::Tensor& tensor);
  std::vector<std::string> emit(const std::string& op, std::vector<std::string> inputs,
                                std::vector<Attribute> attributes, size_t outputs);
  void bind(const Value* value, const std::string& name);
  void note(std::string text);

  Size size_of(const std::string& name, const Dim& dim, int64_t index);
  Size size_of(const SizeExpression& expression);
  Size scalar(const Value* value);
  Size arithmetic(const std::string& op, Size a, Size b);
  std::string as_tensor(const Size& size);

  const Model& model_;
  const UseMap uses_;
  std::unordered_map<const Value*, EncodedWeight> weights_;
  std::unordered_map<const Value*, std::string> stored_names_;
  OnnxModel out_;
  std::vector<std::string> notes_;
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, int64_t> suffixes_;  // so that many equal names stay cheap
  std::unordered_set<std::string> bound_;  // ONNX tensors that stand for a value of the graph
  std::unordered_map<const Value*, std::string> names_, wished_;
  std::unordered_map<const Value*, Size> scalars_;
  std::unordered_map<const Value*, bool> constant_;
  std::map<std::string, std::string> constants_;                   // contents -> name
  std::map<std::pair<std::string, int64_t>, std::string> shapes_;  // tensor, dimension -> name
  std::unordered_map<const Value*, std::string> transposed_;
  std::unordered_map<std::string, std::pair<std::string, int64_t>> symbols_;  // input, dimension
  const Node* node_ = nullptr;                                                // being translated
};

/// The call of one operator, as its rule sees it.
class Call {
 public:
  Call(Translator& translator, const Node& node) : translator_(translator), node_(node) {}

  const Node& node() const { return node_; }
  int opset() const { return translator_.out_.opset; }
  const Argument& argument(std::string_view name) const { return node_.argument(name); }
  /// The argument `name`, of whatever overload has it, or none.
  const Argument& find(std::string_view name) const;
  bool has(std::string_view name) const { return !find(name).is_none(); }

  /// The ONNX tensor of an argument; cast where a dtype is given and differs.
  std::string input(std::string_view name) { return tensor(argument(name)); }
  std::string input(std::string_view name, c10::ScalarType dtype);
  /// The same, or an empty name where the argument is none.
  std::string optional_input(std::string_view name);
  std::string tensor(const Argument& argument);
  /// A tensor, a scalar or a number as a tensor of that dtype.
  std::string operand(const Argument& argument, c10::ScalarType dtype);
  std::vector<std::string> inputs(std::string_view name);
  /// The contents of an argument that depends on named tensors only.
  std::optional<at::Tensor> stored(const Argument& argument);

  const std::vector<Dim>& sizes_of(const Argument& argument) const;
  const std::vector<Dim>& sizes(std::string_view name) const { return sizes_of(argument(name)); }
  int64_t rank(std::string_view name) const { return static_cast<int64_t>(sizes(name).size()); }
  c10::ScalarType dtype_of(const Argument& argument) const;
  c10::ScalarType dtype(std::string_view name) const { return dtype_of(argument(name)); }
  const std::vector<Dim>& out_sizes(size_t index = 0) const;
  c10::ScalarType out_dtype(size_t index = 0) const;
  int64_t out_rank() const { return static_cast<int64_t>(out_sizes().size()); }

  /// Constants; a value that is computed at run time is refused.
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::string text(std::string_view name) const;
  std::vector<int64_t> integers(std::string_view name) const;
  /// A dimension, counted from the front.
  int64_t axis(std::string_view name, int64_t rank) const;
  std::vector<int64_t> axes(std::string_view name, int64_t rank) const;
  /// A fixed size; a symbolic one is refused.
  int64_t fixed(const Dim& dim, std::string_view what) const;

  /// A number or a scalar computed from sizes.
  Size size(const Argument& argument);
  /// The size of a dimension of the tensor `name`.
  Size size_of(const std::string& name, const std::vector<Dim>& sizes, int64_t index) {
    return translator_.size_of(name, sizes.at(static_cast<size_t>(index)), index);
  }
  Size arithmetic(const std::string& op, Size a, Size b) {
    return translator_.arithmetic(op, std::move(a), std::move(b));
  }
  /// int64 [n].
  std::string shape(const std::vector<Size>& sizes);
  std::string shape(const std::vector<Dim>& sizes);
  /// int64 [1], and a number as int64 [].
  std::string as_tensor(const Size& size) { return translator_.as_tensor(size); }
  std::string as_scalar(const Size& size);

  /// Adds a node; its output has a name of its own.
  std::string emit(const std::string& op, std::vector<std::string> inputs,
                   std::vector<Attribute> attributes = {});
  std::vector<std::string> emit_list(const std::string& op, std::vector<std::string> inputs,
                                     std::vector<Attribute> attributes, size_t outputs);
  std::string constant(const at::Tensor& tensor) { return translator_.constant(tensor); }
  std::string constant(const std::vector<int64_t>& numbers);
  std::string constant(double number, c10::ScalarType dtype);

  std::string cast(const std::string& name, c10::ScalarType from, c10::ScalarType to);
  std::string transpose(const std::string& name, const std::vector<int64_t>& order);
  std::string unsqueeze(const std::string& name, const std::vector<int64_t>& axes);
  std::string squeeze(const std::string& name, const std::vector<int64_t>& axes);
  /// `starts` to `ends` along one axis.
  std::string slice(const std::string& name, int64_t axis, const Size& start, const Size& end,
                    int64_t step = 1);
  /// A reduction, whose axes are an attribute or an input as the opset wants it.
  std::string reduce(const std::string& op, const std::string& name,
                     const std::vector<int64_t>& axes, bool keep);
  /// `name` with sizes `from` gets sizes `to`.
  std::string reshape(const std::string& name, const std::vector<Dim>& from,
                      const std::vector<Dim>& to);

  /// The weight matrix [out, in] of a linear layer as [in, out].
  std::string transposed_weight(const Argument& weight);
  /// The codes behind a weight, if it is written as integers.
  const EncodedWeight* encoded(const Argument& weight) const;

  /// Says which ONNX tensor the output is.
  void result(const std::string& name, size_t index = 0);
  void result(Size size);
  void note(std::string text) { translator_.note(std::move(text)); }
  [[noreturn]] void refuse(std::string reason) const { throw Refusal{std::move(reason)}; }

 private:
  Translator& translator_;
  const Node& node_;
};

}  // namespace compress::onnx
