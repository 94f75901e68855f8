// Writes the text form of a model.

#include "compress/graph/digest.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/lexer.h"
#include "compress/graph/schema.h"
#include "compress/graph/tensor_text.h"
#include "compress/graph/text.h"

#include <ATen/core/function_schema.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

namespace compress {
namespace {

using text::append_name;

void append_type(std::string& out, const TensorType& type) {
  if (type.dtype) {
    out += dtype_name(*type.dtype);
  } else {
    out += '?';
  }
  if (!type.sizes) {
    if (type.dtype) out += "[...]";
    return;
  }
  out += '[';
  for (size_t i = 0; i < type.sizes->size(); ++i) {
    const Dim& dim = (*type.sizes)[i];
    if (i > 0) out += ',';
    if (dim.is_symbolic()) {
      out += dim.symbol;
    } else {
      text::append_int(out, dim.size);
    }
  }
  out += ']';
}

void append_type(std::string& out, const Value& value) {
  switch (value.kind()) {
    case ValueKind::kTensor:
      append_type(out, value.type);
      break;
    case ValueKind::kInt:
      out += "int";
      break;
    case ValueKind::kFloat:
      out += "float";
      break;
    case ValueKind::kBool:
      out += "bool";
      break;
  }
}

bool has_known_type(const Value* value) {
  return value->kind() != ValueKind::kTensor || value->type.dtype || value->type.sizes;
}

struct ArgumentPrinter {
  std::string& out;

  void operator()(std::monostate) { out += "none"; }
  void operator()(const Value* value) { append_name(out, value->name()); }
  void operator()(bool constant) { out += constant ? "true" : "false"; }
  void operator()(int64_t constant) { text::append_int(out, constant); }
  void operator()(double constant) { text::append_double(out, constant); }
  void operator()(const std::string& constant) { text::append_quoted(out, constant); }
  void operator()(c10::ScalarType constant) { out += dtype_name(constant); }
  void operator()(c10::Layout constant) { out += layout_name(constant); }
  void operator()(c10::MemoryFormat constant) { out += memory_format_name(constant); }
  void operator()(c10::Device constant) { out += constant.str(); }
  void operator()(const Argument::List& list) {
    out += '[';
    for (size_t i = 0; i < list.size(); ++i) {
      if (i > 0) out += ", ";
      std::visit(*this, list[i].data());
    }
    out += ']';
  }
};

class Printer {
 public:
  explicit Printer(const PrintOptions& options) : options_(options) {}

  void model(const Model& model) {
    for (const Value* input : model.graph().inputs()) {
      out += "input ";
      append_name(out, input->name());
      out += " : ";
      append_type(out, *input);
      out += '\n';
    }
    if (options_.tensors) {
      for (const NamedTensor& tensor : model.tensors()) named_tensor(model, tensor);
    }
    for (const Node& node : model.graph().nodes()) {
      this->node(node);
      out += '\n';
    }
    if (!is_plain_tensor_set(model)) bindings("return ", model.graph().outputs());
    bindings("update ", model.graph().updates());
  }

  void node(const Node& node) {
    const std::vector<Value*>& outputs = node.outputs();
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (i > 0) out += ", ";
      append_name(out, outputs[i]->name());
    }
    if (!outputs.empty()) out += " = ";
    append_op(node.op());
    out += '(';
    arguments(node);
    out += ')';
    if (options_.types && std::any_of(outputs.begin(), outputs.end(), has_known_type)) {
      out += " : ";
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (i > 0) out += ", ";
        append_type(out, *outputs[i]);
      }
    }
    if (!node.module_path.empty()) {
      out += " @ ";
      text::append_path(out, node.module_path);
    }
  }

  std::string out;

 private:
  using Defaults = std::vector<std::optional<Argument>>;

  void append_op(const std::string& op) {
    const bool is_plain = !op.empty() && std::all_of(op.begin(), op.end(), [](unsigned char c) {
      return std::isalnum(c) || c == '_' || c == '.' || c == ':';
    });
    if (is_plain && op.find("::") != std::string::npos) {
      out += op;
    } else {
      out += '%';
      text::append_quoted(out, op);
    }
  }

  void named_tensor(const Model& model, const NamedTensor& tensor) {
    switch (tensor.role) {
      case TensorRole::kParameter:
        out += "parameter ";
        break;
      case TensorRole::kBuffer:
        out += "buffer ";
        break;
      case TensorRole::kConstant:
        out += "constant ";
        break;
    }
    append_name(out, tensor.name);
    for (size_t i = 0; i < tensor.aliases.size(); ++i) {
      out += i == 0 ? " alias " : ", ";
      append_name(out, tensor.aliases[i]);
    }
    out += " : ";
    TensorType type;
    if (tensor.tensor.defined()) {
      type.dtype = tensor.tensor.scalar_type();
      type.sizes.emplace(tensor.tensor.sizes().begin(), tensor.tensor.sizes().end());
    } else if (const Value* value = model.graph().find(tensor.name)) {
      type = value->type;
    }
    append_type(out, type);
    if (options_.contents) contents(tensor);
    out += '\n';
  }

  void contents(const NamedTensor& tensor) {
    if (tensor.tensor.defined() && text::prints_elements(tensor.tensor)) {
      out += " = ";
      text::append_elements(out, tensor.tensor);
    } else if (tensor.tensor.defined() || !tensor.digest.empty()) {
      out += " = #" + tensor_digest(tensor);
    }
  }

  void arguments(const Node& node) {
    const std::vector<Argument>& given = node.arguments();
    const c10::FunctionSchema* schema = node.schema();
    // Without a schema, or with arguments that do not fill it, nothing can be left out.
    const bool fits = schema != nullptr && schema->arguments().size() == given.size();
    const Defaults* defaults = fits ? &defaults_of(*schema) : nullptr;
    const auto is_default = [&](size_t i) {
      return fits && (*defaults)[i].has_value() && given[i] == *(*defaults)[i];
    };
    size_t positional = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      const bool by_keyword = fits && schema->arguments()[i].kwarg_only();
      if (!by_keyword && !is_default(i)) positional = i + 1;
    }
    bool first = true;
    for (size_t i = 0; i < given.size(); ++i) {
      const bool by_keyword = fits && schema->arguments()[i].kwarg_only();
      if (by_keyword ? is_default(i) : i >= positional) continue;
      if (!first) out += ", ";
      first = false;
      if (by_keyword) {
        append_name(out, schema->arguments()[i].name());
        out += '=';
      }
      std::visit(ArgumentPrinter{out}, given[i].data());
    }
  }

  const Defaults& defaults_of(const c10::FunctionSchema& schema) {
    const auto [found, is_new] = defaults_.try_emplace(&schema);
    if (is_new) {
      for (size_t i = 0; i < schema.arguments().size(); ++i) {
        found->second.push_back(default_argument(schema, i));
      }
    }
    return found->second;
  }

  static bool is_plain_tensor_set(const Model& model) {
    const Graph& graph = model.graph();
    const auto returns_itself = [](const Output& output, const NamedTensor& tensor) {
      const Value* value = output.value.value();
      return output.name == tensor.name && value != nullptr && value->name() == tensor.name;
    };
    return graph.inputs().empty() && graph.nodes().empty() &&
           std::equal(graph.outputs().begin(), graph.outputs().end(), model.tensors().begin(),
                      model.tensors().end(), returns_itself);
  }

  void bindings(std::string_view keyword, const std::vector<Output>& outputs) {
    for (const Output& output : outputs) {
      out += keyword;
      append_name(out, output.name);
      out += " = ";
      std::visit(ArgumentPrinter{out}, output.value.data());
      out += '\n';
    }
  }

  PrintOptions options_;
  std::unordered_map<const c10::FunctionSchema*, Defaults> defaults_;
};

}  // namespace

std::string print(const Model& model, const PrintOptions& options) {
  Printer printer(options);
  printer.model(model);
  return std::move(printer.out);
}

std::string print(const Node& node, const PrintOptions& options) {
  Printer printer(options);
  printer.node(node);
  return std::move(printer.out);
}

std::string print(const TensorType& type) {
  std::string out;
  append_type(out, type);
  return out;
}

}  // namespace compress
