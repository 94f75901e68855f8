// Writes .pt2 archives that Python's torch.export.load accepts as its own.

#include "compress/error.h"
#include "compress/graph/shapes.h"
#include "compress/io/pt2.h"
#include "compress/io/pt2_graph_writer.h"
#include "compress/io/pt2_signature.h"
#include "compress/io/zip.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace compress {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using namespace pt2;

// Python reads nothing of a weight's name but this; a fixed one gives the same bytes for any path.
const std::string kRoot = "model/";

std::vector<Dim> dims_of(const at::Tensor& tensor) {
  return {tensor.sizes().begin(), tensor.sizes().end()};
}

bool has_all_types(const Model& model) {
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) {
      if (output->kind() != ValueKind::kTensor) continue;
      if (!output->type.dtype || !output->type.sizes) return false;
    }
  }
  return true;
}

void check_writable(const Model& model) {
  if (model.is_tensor_set()) {
    throw Error(ErrorCode::kInvalidArgument, "a .pt2 file needs a graph, this is a set of tensors",
                {}, "write .safetensors, or give the architecture with --arch");
  }
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined() || tensor.tensor.is_meta()) {
      throw Error(ErrorCode::kInvalidArgument, "the tensor has no contents", tensor.name,
                  "the text form only has its digest; supply its values first");
    }
    if (tensor.tensor.layout() != c10::kStrided) {
      throw Error(ErrorCode::kUnsupported, "a tensor that is not strided", tensor.name);
    }
  }
}

// Writes the program and the tensors of one model.
class ProgramWriter {
 public:
  ProgramWriter(const Model& model, const std::filesystem::path& path)
      : model_(model),
        metadata_(read_metadata(model)),
        names_(model),
        symbols_(model),
        graph_(model, names_, symbols_),
        zip_(path) {
    for (const json& name : metadata_.value("not_saved", json::array())) {
      if (name.is_string()) not_saved_.insert(name.get<std::string>());
    }
    for (const NamedTensor& tensor : model_.tensors()) tensors_.push_back(&tensor);
    std::stable_partition(tensors_.begin(), tensors_.end(), [](const NamedTensor* tensor) {
      return tensor->role == TensorRole::kParameter;
    });
  }

  void write() {
    write_tensors();
    const std::string program = program_json().dump();
    zip_.add_deflated(kRoot + "models/model.json", program);
    zip_.add(kRoot + "data/sample_inputs/model.pt", std::string_view());
    zip_.add_deflated(kRoot + "extra/lathe.json", extra_json().dump());
    zip_.add(kRoot + "archive_format", std::string_view("pt2"));
    zip_.add(kRoot + "archive_version", std::string_view("0"));
    zip_.add(kRoot + ".data/version", std::string_view("6\n"));
    zip_.add(kRoot + "byteorder", std::string_view("little"));
    zip_.finish();
  }

 private:
  void write_tensors();
  json program_json();
  json signature_json();
  json graph_json();
  json module_call_graph();
  json ranges();
  json extra_json() const;
  std::vector<json> constant_inputs() const;
  bool is_saved(const NamedTensor& tensor) const {
    return tensor.role != TensorRole::kConstant && !not_saved_.contains(tensor.name);
  }
  json input_spec(const NamedTensor& tensor, const std::string& name,
                  const std::string& placeholder) const;

  const Model& model_;
  const json metadata_;
  FileNames names_;
  FileSymbols symbols_;
  GraphWriter graph_;
  ZipWriter zip_;
  std::set<std::string> not_saved_;
  std::vector<const NamedTensor*> tensors_;  // parameters first, as Python wants them
  json inputs_ = json::array(), input_specs_ = json::array();
  json outputs_ = json::array(), output_specs_ = json::array();
};

void ProgramWriter::write_tensors() {
  ordered_json weights = ordered_json::object(), constants = ordered_json::object();
  size_t weight_count = 0, constant_count = 0;
  for (const NamedTensor* next : tensors_) {
    const NamedTensor& tensor = *next;
    const bool saved = is_saved(tensor);
    const std::string file = saved ? fmt::format("weight_{}", weight_count++)
                                   : fmt::format("tensor_{}", constant_count++);
    {
      const at::Tensor bytes = tensor.tensor.detach().resolve_conj().cpu().contiguous();
      zip_.add(kRoot + (saved ? "data/weights/" : "data/constants/") + file,
               std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
    }
    const bool parameter = tensor.role == TensorRole::kParameter;
    const ordered_json payload = {
        {"path_name", file},
        {"is_param", parameter},
        {"use_pickle", false},
        {"tensor_meta", tensor_meta(tensor.tensor.scalar_type(), dims_of(tensor.tensor),
                                    tensor.tensor.requires_grad(), symbols_)}};
    ordered_json& config = saved ? weights : constants;
    config[tensor.name] = payload;
    for (const std::string& alias : tensor.aliases) config[alias] = payload;
  }
  zip_.add_deflated(kRoot + "data/weights/model_weights_config.json",
                    ordered_json{{"config", weights}}.dump());
  zip_.add_deflated(kRoot + "data/constants/model_constants_config.json",
                    ordered_json{{"config", constants}}.dump());
}

json ProgramWriter::input_spec(const NamedTensor& tensor, const std::string& name,
                               const std::string& placeholder) const {
  const json arg = {{"name", placeholder}};
  if (tensor.role == TensorRole::kParameter) {
    return {{"parameter", {{"arg", arg}, {"parameter_name", name}}}};
  }
  if (tensor.role == TensorRole::kBuffer || not_saved_.contains(tensor.name)) {
    return {{"buffer", {{"arg", arg}, {"buffer_name", name}, {"persistent", is_saved(tensor)}}}};
  }
  return {{"tensor_constant", {{"arg", arg}, {"tensor_constant_name", name}}}};
}

// Arguments that were fixed when the model was exported, if the call still has as many as it had.
std::vector<json> ProgramWriter::constant_inputs() const {
  const json constants = metadata_.value("constant_inputs", json::array());
  const json in_spec = metadata_.value("in_spec", json());
  const size_t count = model_.graph().inputs().size() + constants.size();
  if (!in_spec.is_string() ||
      count_leaves(in_spec.get<std::string>()) != static_cast<int64_t>(count)) {
    return {};
  }
  return {constants.begin(), constants.end()};
}

json ProgramWriter::signature_json() {
  for (const NamedTensor* tensor : tensors_) {
    const auto add = [&](const std::string& name, const std::string& placeholder) {
      inputs_.push_back({{"as_tensor", {{"name", placeholder}}}});
      input_specs_.push_back(input_spec(*tensor, name, placeholder));
    };
    add(tensor->name, names_.of(model_.graph().find(tensor->name)));
    for (const std::string& alias : tensor->aliases) add(alias, names_.of_alias(alias));
  }
  const std::vector<json> constants = constant_inputs();
  size_t position = 0;
  const auto add_constants = [&] {
    for (const json& constant : constants) {
      if (constant.value("position", size_t{0}) != position) continue;
      inputs_.push_back(constant.at("value"));
      input_specs_.push_back({{"constant_input",
                               {{"name", names_.fresh(constant.value("name", "arg"))},
                                {"value", constant.at("value")}}}});
      ++position;
    }
  };
  for (Value* input : model_.graph().inputs()) {
    add_constants();
    const json reference = graph_.argument(Argument(input));
    inputs_.push_back(reference);
    input_specs_.push_back({{"user_input", {{"arg", reference}}}});
    ++position;
  }
  add_constants();
  // Python wants new contents of buffers in front of what the caller gets.
  for (const Output& update : model_.graph().updates()) {
    const json reference = graph_.argument(update.value);
    outputs_.push_back(reference);
    output_specs_.push_back(
        {{"buffer_mutation", {{"arg", reference.at("as_tensor")}, {"buffer_name", update.name}}}});
  }
  for (const Output& output : model_.graph().outputs()) {
    const json reference = graph_.argument(output.value);
    outputs_.push_back(reference);
    output_specs_.push_back({{"user_output", {{"arg", reference}}}});
  }
  return {{"input_specs", input_specs_}, {"output_specs", output_specs_}};
}

json ProgramWriter::graph_json() {
  return {{"inputs", inputs_},
          {"outputs", outputs_},
          {"nodes", graph_.nodes()},
          {"tensor_values", graph_.tensor_values()},
          {"sym_int_values", graph_.scalar_values(ValueKind::kInt)},
          {"sym_bool_values", graph_.scalar_values(ValueKind::kBool)},
          {"sym_float_values", graph_.scalar_values(ValueKind::kFloat)},
          {"custom_obj_values", json::object()},
          {"is_single_tensor_return", false}};
}

json ProgramWriter::module_call_graph() {
  const size_t input_count = input_specs_.size() == 0 ? 0 : model_.graph().inputs().size();
  const size_t output_count = model_.graph().outputs().size();
  json signature = {{"inputs", json::array()}, {"outputs", json::array()}};
  const json in_spec = metadata_.value("in_spec", json());
  const size_t leaves = input_count + constant_inputs().size();
  if (in_spec.is_string() &&
      count_leaves(in_spec.get<std::string>()) == static_cast<int64_t>(leaves)) {
    signature["in_spec"] = in_spec;
    signature["forward_arg_names"] = metadata_.value("forward_arg_names", json());
  } else {
    signature["in_spec"] = positional_spec(input_count);
    json names = json::array();
    for (const Value* input : model_.graph().inputs()) names.push_back(names_.of(input));
    signature["forward_arg_names"] = std::move(names);
  }
  const json out_spec = metadata_.value("out_spec", json());
  const bool fits = out_spec.is_string() &&
                    count_leaves(out_spec.get<std::string>()) == static_cast<int64_t>(output_count);
  signature["out_spec"] = fits ? out_spec : json(result_spec(output_count));
  json entries = json::array({{{"fqn", ""}, {"signature", std::move(signature)}}});
  std::set<std::string> paths;
  for (const Node& node : model_.graph().nodes()) {
    for (size_t end = node.module_path.find('.'); !node.module_path.empty();
         end = node.module_path.find('.', end + 1)) {
      paths.insert(node.module_path.substr(0, end));
      if (end == std::string::npos) break;
    }
  }
  for (const std::string& path : paths) entries.push_back({{"fqn", path}, {"signature", nullptr}});
  return entries;
}

json ProgramWriter::ranges() {
  const json known = metadata_.value("ranges", json::object());
  json ranges = json::object();
  for (const auto& [symbol, name] : symbols_.used()) {
    const bool unbacked = name.starts_with("u");
    json range = {{"min_val", unbacked ? 0 : 1}, {"max_val", nullptr}};
    if (known.contains(symbol)) range = known[symbol];
    ranges[name] = std::move(range);
  }
  return ranges;
}

json ProgramWriter::program_json() {
  json signature = signature_json();
  json graph = graph_json();
  json module = {
      {"graph", std::move(graph)},
      {"signature", std::move(signature)},
      {"module_call_graph", module_call_graph()},
      {"metadata", json::object()},
      {"treespec_namedtuple_fields", metadata_.value("namedtuple_fields", json::object())}};
  // The oldest minor version that has all we write; readers of later ones accept it.
  return {{"graph_module", std::move(module)},
          {"opset_version", {{"aten", 10}}},
          {"range_constraints", ranges()},
          {"schema_version", {{"major", 8}, {"minor", 8}}},
          {"verifiers", json::array({"TRAINING"})},
          {"torch_version", "2.9.0"},
          {"guards_code", json::array()}};
}

json ProgramWriter::extra_json() const {
  json metadata = json::object();
  for (const auto& [key, value] : model_.metadata) {
    if (key != kMetadataKey) metadata[key] = value;
  }
  json symbols = json::object();
  for (const auto& [symbol, name] : symbols_.renamed()) symbols[name] = symbol;
  return {{"metadata", std::move(metadata)}, {"symbols", std::move(symbols)}};
}

}  // namespace

void save_pt2(const Model& model, const std::filesystem::path& path) {
  check_writable(model);
  if (has_all_types(model)) {
    ProgramWriter(model, path).write();
    return;
  }
  Model typed = model.clone(false);
  propagate_shapes(typed);
  ProgramWriter(typed, path).write();
}

}  // namespace compress
