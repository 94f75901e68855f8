// Checks that a model is well formed.

#include "compress/graph/verify.h"

#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/schema.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"

#include <ATen/core/function_schema.h>
#include <ATen/core/jit_type.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

std::string_view kind_name(ValueKind kind) {
  switch (kind) {
    case ValueKind::kTensor:
      return "tensor";
    case ValueKind::kInt:
      return "int";
    case ValueKind::kFloat:
      return "float";
    case ValueKind::kBool:
      return "bool";
  }
  return "?";
}

struct Describe {
  std::string operator()(std::monostate) const { return "none"; }
  std::string operator()(const Value* value) const {
    return fmt::format("the {} `{}`", kind_name(value->kind()), value->name());
  }
  std::string operator()(bool constant) const { return constant ? "true" : "false"; }
  std::string operator()(int64_t constant) const { return fmt::format("{}", constant); }
  std::string operator()(double constant) const { return fmt::format("the float {}", constant); }
  std::string operator()(const std::string& text) const { return fmt::format("\"{:.40}\"", text); }
  std::string operator()(c10::ScalarType dtype) const { return std::string(dtype_name(dtype)); }
  std::string operator()(c10::Layout layout) const { return std::string(layout_name(layout)); }
  std::string operator()(c10::MemoryFormat format) const {
    return std::string(memory_format_name(format));
  }
  std::string operator()(c10::Device device) const { return device.str(); }
  std::string operator()(const Argument::List& list) const {
    return fmt::format("a list of {}", list.size());
  }
};

bool fits(const Argument& argument, const c10::TypePtr& type);

bool is_number(const Argument& argument) {
  if (const Value* value = argument.value()) return value->kind() != ValueKind::kTensor;
  const auto& data = argument.data();
  return std::holds_alternative<int64_t>(data) || std::holds_alternative<double>(data) ||
         std::holds_alternative<bool>(data);
}

// Ints serve as bools and bools as ints, as in Python; a float serves as neither.
bool is_integral(const Argument& argument) {
  if (const Value* value = argument.value()) {
    return value->kind() == ValueKind::kInt || value->kind() == ValueKind::kBool;
  }
  return std::holds_alternative<int64_t>(argument.data()) ||
         std::holds_alternative<bool>(argument.data());
}

template <class Constant>
bool is_enum(const Argument& argument) {
  return std::holds_alternative<Constant>(argument.data()) || argument.is_int();
}

bool fits(const Argument& argument, const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      return argument.is_none() ||
             fits(argument, type->expectRef<c10::OptionalType>().getElementType());
    case c10::TypeKind::ListType: {
      if (!argument.is_list()) return false;
      const c10::TypePtr& element = type->expectRef<c10::ListType>().getElementType();
      return std::all_of(argument.list().begin(), argument.list().end(),
                         [&](const Argument& item) { return fits(item, element); });
    }
    case c10::TypeKind::TensorType:
      // A number in a tensor's place takes part as a wrapped number.
      return is_number(argument) ||
             (argument.is_value() && argument.value()->kind() == ValueKind::kTensor);
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
      return is_integral(argument);
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
    case c10::TypeKind::NumberType:
      return is_number(argument);
    case c10::TypeKind::StringType:
      return std::holds_alternative<std::string>(argument.data());
    case c10::TypeKind::DeviceObjType:
      return std::holds_alternative<c10::Device>(argument.data());
    case c10::TypeKind::ScalarTypeType:
      return is_enum<c10::ScalarType>(argument);
    case c10::TypeKind::LayoutType:
      return is_enum<c10::Layout>(argument);
    case c10::TypeKind::MemoryFormatType:
      return is_enum<c10::MemoryFormat>(argument);
    case c10::TypeKind::GeneratorType:
      return false;  // only none, through an optional
    default:
      return true;
  }
}

// `int[2]` takes two numbers, or one for both, or what its default is (`int[2] stride=[]`).
bool fits_length(const Argument& argument, const c10::Argument& declared) {
  if (!declared.N() || !argument.is_list()) return true;
  const size_t length = argument.list().size();
  // `int[1]` says that a number stands for a list of one; lists of any length do (`mean.dim`).
  return *declared.N() == 1 || length == static_cast<size_t>(*declared.N()) || length == 1 ||
         (length == 0 && declared.default_value().has_value());
}

TensorType type_of(const at::Tensor& tensor) {
  TensorType type;
  type.dtype = tensor.scalar_type();
  type.sizes.emplace(tensor.sizes().begin(), tensor.sizes().end());
  return type;
}

class Verifier {
 public:
  Verifier(const Model& model, bool unused)
      : model_(model), graph_(model.graph()), report_unused_(unused) {}

  std::vector<std::string> run() {
    names();
    for (const Value* value : graph_.inputs()) defined_.insert(value);
    for (const Value* value : graph_.named_tensors()) defined_.insert(value);
    for (const Node& node : graph_.nodes()) this->node(node);
    outputs(graph_.outputs(), "output");
    outputs(graph_.updates(), "update");
    updated_buffers();
    tensors();
    aliases();
    return std::move(problems_);
  }

 private:
  template <class... Arguments>
  void report(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    problems_.push_back(fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  void names() {
    std::unordered_set<std::string_view> seen;
    const auto add = [&](const Value* value) {
      all_.insert(value);
      if (value->name().empty()) report("a value has no name");
      if (!seen.insert(value->name()).second)
        report("two values have the name `{}`", value->name());
      if (graph_.find(value->name()) != value) {
        report("the value `{}` cannot be found by its name", value->name());
      }
    };
    for (const Value* value : graph_.inputs()) add(value);
    for (const Value* value : graph_.named_tensors()) add(value);
    for (const Node& node : graph_.nodes()) {
      for (const Value* value : node.outputs()) add(value);
    }
  }

  static std::string describe(const Node& node) {
    return node.outputs().empty() ? node.op()
                                  : fmt::format("`{}` ({})", node.outputs()[0]->name(), node.op());
  }

  // Notes the uses in an argument; false if one of them cannot be looked at further.
  bool use(const Argument& argument, const std::string& user) {
    bool is_sound = true;
    argument.each_value([&](const Value* value) {
      used_.insert(value);
      if (!all_.contains(value)) {
        report("{} uses a value that is not in the graph", user);
        is_sound = false;
      } else if (!defined_.contains(value)) {
        report("{} uses `{}`, which is computed later", user, value->name());
      }
    });
    return is_sound;
  }

  void node(const Node& node) {
    const std::string name = describe(node);
    bool is_sound = true;
    for (const Argument& argument : node.arguments()) is_sound = use(argument, name) && is_sound;
    if (is_sound && node.schema() != nullptr) schema(node, name);
    for (size_t i = 0; i < node.outputs().size(); ++i) {
      const Value* output = node.outputs()[i];
      defined_.insert(output);
      if (output->producer() != &node || output->output_index() != i) {
        report("`{}` does not know that {} computes it", output->name(), name);
      }
    }
  }

  void schema(const Node& node, const std::string& name) {
    const std::vector<c10::Argument>& declared = node.schema()->arguments();
    if (node.arguments().size() != declared.size()) {
      report("{} has {} arguments, expected {}", name, node.arguments().size(), declared.size());
    }
    for (size_t i = 0; i < std::min(declared.size(), node.arguments().size()); ++i) {
      const Argument& argument = node.arguments()[i];
      if (fits(argument, declared[i].real_type()) && fits_length(argument, declared[i])) continue;
      const std::string length = declared[i].N() && argument.is_list()
                                     ? fmt::format(" of length {}", *declared[i].N())
                                     : std::string();
      report("{}: argument `{}` is {}, expected {}{}", name, declared[i].name(),
             std::visit(Describe{}, argument.data()), declared[i].type()->str(), length);
    }
    const size_t fixed = node.schema()->returns().size();
    const size_t count = node.outputs().size();
    const std::vector<ValueKind> kinds =
        return_kinds(*node.schema(), count + 1 >= fixed ? count + 1 - fixed : 0);
    if (kinds.size() != count) {
      report("{} has {} outputs, expected {}", name, count, kinds.size());
      return;
    }
    for (size_t i = 0; i < count; ++i) {
      const Value* output = node.outputs()[i];
      const bool is_scalar = output->kind() != ValueKind::kTensor;
      // `aten::item` returns a number of any kind.
      const bool is_number =
          node.schema()->returns().size() == count &&
          node.schema()->returns()[i].type()->kind() == c10::TypeKind::NumberType;
      if (output->kind() != kinds[i] && !(is_number && is_scalar)) {
        report("{}: `{}` is of kind {}, expected {}", name, output->name(),
               kind_name(output->kind()), kind_name(kinds[i]));
      }
    }
  }

  void outputs(const std::vector<Output>& outputs, std::string_view what) {
    std::unordered_set<std::string_view> seen;
    for (const Output& output : outputs) {
      use(output.value, fmt::format("{} `{}`", what, output.name));
      if (output.name.empty()) report("an {} has no name", what);
      if (!seen.insert(output.name).second) report("two {}s have the name `{}`", what, output.name);
    }
  }

  void updated_buffers() {
    for (const Output& update : graph_.updates()) {
      const NamedTensor* buffer = model_.find_tensor(update.name);
      if (buffer == nullptr) {
        report("the update `{}` names no tensor", update.name);
        continue;
      }
      if (buffer->role == TensorRole::kParameter) {
        report("the update `{}` names a parameter, expected a buffer", update.name);
      }
      if (const Value* value = graph_.find(buffer->name)) used_.insert(value);
    }
  }

  void tensors() {
    std::unordered_set<const Value*> owned;
    for (const NamedTensor& tensor : model_.tensors()) {
      const Value* value = graph_.find(tensor.name);
      if (value == nullptr || !value->is_named_tensor()) {
        report("the tensor `{}` has no value in the graph", tensor.name);
        continue;
      }
      owned.insert(value);
      if (report_unused_ && !used_.contains(value))
        report("nothing uses the tensor `{}`", tensor.name);
      if (tensor.tensor.defined()) type(tensor, *value);
    }
    for (const Value* value : graph_.named_tensors()) {
      if (!owned.contains(value)) report("the model has no tensor `{}`", value->name());
    }
  }

  void type(const NamedTensor& tensor, const Value& value) {
    const TensorType actual = type_of(tensor.tensor);
    if (value.type.dtype != actual.dtype || value.type.sizes != actual.sizes) {
      report("the tensor `{}` is {}, but the graph says {}", tensor.name, print(actual),
             print(value.type));
    }
  }

  void aliases() {
    std::unordered_set<std::string_view> seen;
    for (const NamedTensor& tensor : model_.tensors()) {
      for (const std::string& alias : tensor.aliases) {
        if (!seen.insert(alias).second) report("two tensors have the alias `{}`", alias);
        if (graph_.find(alias) != nullptr) {
          report("the alias `{}` of `{}` is also the name of a value", alias, tensor.name);
        }
        if (model_.find_tensor(alias) != &tensor) {
          report("the tensor `{}` cannot be found by its alias `{}`", tensor.name, alias);
        }
      }
    }
  }

  const Model& model_;
  const Graph& graph_;
  const bool report_unused_;
  std::unordered_set<const Value*> all_, defined_, used_;
  std::vector<std::string> problems_;
};

// A symbol in the stored type says nothing about this run, so it fits every size.
bool agrees(const TensorType& stored, const TensorType& found) {
  if (stored.dtype && stored.dtype != found.dtype) return false;
  if (!stored.sizes || !found.sizes) return true;
  return std::equal(stored.sizes->begin(), stored.sizes->end(), found.sizes->begin(),
                    found.sizes->end(), [](const Dim& expected, const Dim& actual) {
                      return expected.is_symbolic() || expected == actual;
                    });
}

void check_shapes(const Model& model, std::vector<std::string>& problems) {
  for (const NamedTensor& tensor : model.tensors()) {
    if (tensor.tensor.defined()) continue;
    problems.push_back(fmt::format("shapes cannot be found: `{}` has no contents", tensor.name));
    return;
  }
  Model copy = model.clone();
  try {
    propagate_shapes(copy);
  } catch (const std::exception& error) {
    problems.push_back(fmt::format("shapes cannot be found: {}", error.what()));
    return;
  }
  for (const Node& node : model.graph().nodes()) {
    for (const Value* value : node.outputs()) {
      const Value* found = copy.graph().find(value->name());
      if (value->kind() != ValueKind::kTensor || agrees(value->type, found->type)) continue;
      problems.push_back(fmt::format("`{}` ({}) is {}, but the graph says {}", value->name(),
                                     node.op(), print(found->type), print(value->type)));
    }
  }
}

}  // namespace

std::vector<std::string> problems(const Model& model, const VerifyOptions& options) {
  std::vector<std::string> found = Verifier(model, options.unused).run();
  // A graph that is not well formed cannot be run.
  if (options.shapes && found.empty()) check_shapes(model, found);
  return found;
}

void verify(const Model& model, const VerifyOptions& options) {
  const std::vector<std::string> found = problems(model, options);
  if (found.empty()) return;
  throw Error(ErrorCode::kRunFailed,
              fmt::format("the model is not well formed: {}", fmt::join(found, "; ")));
}

}  // namespace compress
