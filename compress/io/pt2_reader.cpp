// Reads .pt2 archives: finds the parts, then signature, graph and tensors.

#include "compress/error.h"
#include "compress/graph/batch.h"
#include "compress/graph/functionalize.h"
#include "compress/graph/size_expression.h"
#include "compress/io/pt2.h"
#include "compress/io/pt2_graph_reader.h"
#include "compress/io/pt2_signature.h"
#include "compress/io/pt2_types.h"
#include "compress/io/pt2_weights.h"
#include "compress/io/zip.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <optional>

namespace compress {
namespace {

using nlohmann::json;
using namespace pt2;

// Schema versions whose meaning is known. Minor versions only add what may be skipped.
constexpr int64_t kOldestMajor = 5, kNewestMajor = 8;

// The parts of an archive, whichever layout it has.
struct Archive {
  std::string program;  ///< entry with the program's JSON
  Payloads weights, constants;
  std::optional<std::string> extra;  ///< what Lathe wrote beside the program
};

std::string error_hint() { return "expected a file of torch.export.save"; }

// torch 2.8 and later: everything under a root folder; several models may share an archive.
std::optional<std::pair<std::string, std::string>> find_model(const ZipReader& zip) {
  std::vector<std::pair<std::string, std::string>> models;
  for (const ZipEntry& entry : zip.entries()) {
    const std::string_view name = entry.name;
    const size_t folder = name.find("models/");
    if (folder == std::string_view::npos || !name.ends_with(".json")) continue;
    if (folder != 0 && name[folder - 1] != '/') continue;
    const std::string model(name.substr(folder + 7, name.size() - folder - 12));
    models.emplace_back(name.substr(0, folder), model);
    if (model == "model") return models.back();
  }
  if (models.empty()) return std::nullopt;
  if (models.size() > 1) {
    throw Error(ErrorCode::kUnsupported, fmt::format("{} programs in one archive", models.size()),
                zip.file()->name(), "save the one to compress in a file of its own");
  }
  return models.front();
}

// Either a config that lists raw payloads (torch 2.9 and later) or one nested checkpoint (2.8).
void add_tensors(const ZipReader& zip, const std::string& folder, const std::string& model,
                 const char* what, Payloads& payloads) {
  if (const ZipEntry* entry = zip.find(folder + model + ".pt")) {
    payloads.add_checkpoint(zip, *entry);
    return;
  }
  const ZipEntry* entry = zip.find(fmt::format("{}{}_{}_config.json", folder, model, what));
  if (entry == nullptr) {
    throw Error(ErrorCode::kBadFile, fmt::format("no list of the {} of `{}`", what, model),
                zip.file()->name(), "the file is not complete");
  }
  payloads.add_config(zip, folder, JsonDocument(zip.read(*entry), zip.where(*entry)));
}

Archive open_archive(const ZipReader& zip) {
  Archive archive;
  if (const auto model = find_model(zip)) {
    const auto& [root, name] = *model;
    archive.program = fmt::format("{}models/{}.json", root, name);
    add_tensors(zip, root + "data/weights/", name, "weights", archive.weights);
    add_tensors(zip, root + "data/constants/", name, "constants", archive.constants);
    if (const ZipEntry* extra = zip.find(root + "extra/lathe.json")) {
      archive.extra = zip.read(*extra);
    }
    return archive;
  }
  // torch 2.5 to 2.7: five entries side by side.
  archive.program = "serialized_exported_program.json";
  if (zip.find(archive.program) == nullptr) {
    const bool checkpoint = !zip.entries().empty() && zip.entries()[0].name.ends_with("data.pkl");
    throw Error(ErrorCode::kBadFile, "no exported program inside", zip.file()->name(),
                checkpoint ? "this is a file of torch.save: read it as .pth" : error_hint());
  }
  archive.weights.add_checkpoint(zip, zip.at("serialized_state_dict.pt"));
  if (const ZipEntry* constants = zip.find("serialized_constants.pt")) {
    archive.constants.add_checkpoint(zip, *constants);
  }
  return archive;
}

void check_version(const JsonCursor& program) {
  const JsonCursor version = program["schema_version"];
  const int64_t major = version["major"].integer();
  if (major < kOldestMajor || major > kNewestMajor) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("schema version {}, known are {} to {}", major, kOldestMajor, kNewestMajor),
        version.where(), "export the model again with torch 2.5 or later");
  }
}

// Fills a model from one program.
class ProgramReader {
 public:
  ProgramReader(const JsonCursor& program, const Archive& archive)
      : program_(program),
        module_(program["graph_module"]),
        graph_(module_["graph"]),
        archive_(archive),
        reader_(model_) {}

  Model read() {
    read_inputs();
    reader_.append_nodes(graph_, scope_);
    read_call_signature();
    read_outputs();
    extras_["modules"] = reader_.modules();
    if (!reader_.scalars().empty()) extras_["scalars"] = reader_.scalars();
    if (!reader_.foreign().empty()) extras_["foreign"] = reader_.foreign();
    if (program_.has("range_constraints")) extras_["ranges"] = program_["range_constraints"].json();
    model_.metadata[kMetadataKey] = extras_.dump();
    return std::move(model_);
  }

 private:
  void read_inputs();
  void read_constant_input(const std::string& name, const json& value, size_t position);
  void read_user_input(const JsonCursor& argument, size_t position);
  void add_tensor(const JsonCursor& spec, const char* name_key, TensorRole role,
                  const Payloads& payloads);
  void read_call_signature();
  void read_outputs();

  const JsonCursor program_, module_, graph_;
  const Archive& archive_;
  Model model_;
  GraphReader reader_;
  Scope scope_;
  json extras_ = json::object();
  std::unordered_multimap<const void*, NamedTensor*> by_data_;  // to find ties
};

void ProgramReader::read_inputs() {
  // Named tensors first: their names are the user's, those of values may change.
  const std::vector<JsonCursor> specs = module_["signature"]["input_specs"].elements();
  for (const JsonCursor& spec : specs) {
    const auto [kind, body] = spec.alternative();
    if (kind == "parameter") {
      add_tensor(body, "parameter_name", TensorRole::kParameter, archive_.weights);
    } else if (kind == "buffer") {
      const bool saved = !body.has("persistent") || body["persistent"].boolean();
      if (!saved) extras_["not_saved"].push_back(body["buffer_name"].string());
      add_tensor(body, "buffer_name", saved ? TensorRole::kBuffer : TensorRole::kConstant,
                 saved ? archive_.weights : archive_.constants);
    } else if (kind == "tensor_constant") {
      add_tensor(body, "tensor_constant_name", TensorRole::kConstant, archive_.constants);
    } else if (kind == "custom_obj" || kind == "token") {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("the program takes a {}",
                              kind == "token" ? "token of effects" : "custom C++ object"),
                  spec.where());
    } else if (kind != "user_input" && kind != "constant_input") {
      spec.fail(fmt::format("`{}` is no kind of input", kind));
    }
  }
  size_t position = 0;
  for (const JsonCursor& spec : specs) {
    const auto [kind, body] = spec.alternative();
    if (kind == "user_input") read_user_input(body["arg"], position++);
    if (kind == "constant_input") {
      read_constant_input(body["name"].string(), body["value"].json(), position++);
    }
  }
}

void ProgramReader::read_constant_input(const std::string& name, const json& value,
                                        size_t position) {
  extras_["constant_inputs"].push_back({{"position", position}, {"name", name}, {"value", value}});
}

void ProgramReader::read_user_input(const JsonCursor& argument, size_t position) {
  const auto [kind, value] = argument.alternative();
  const auto add = [&](const std::string& name, TensorType type, ValueKind value_kind) {
    Value* input = model_.graph().add_input(name, std::move(type), value_kind);
    if (!scope_.emplace(name, Argument(input)).second) {
      argument.fail(fmt::format("two inputs are called `{}`", name));
    }
  };
  if (kind == "as_tensor") {
    const std::string& name = value["name"].string();
    add(name, GraphReader::type_of(graph_, name), ValueKind::kTensor);
  } else if (kind == "as_sym_int") {
    const std::string& name = value["as_name"].string();
    add(name, {}, ValueKind::kInt);
    reader_.note_scalar(graph_, name, scope_.at(name).value()->name());
  } else if (kind == "as_sym_float") {
    add(value["as_name"].string(), {}, ValueKind::kFloat);
  } else if (kind == "as_sym_bool") {
    add(value["as_name"].string(), {}, ValueKind::kBool);
  } else if (kind == "as_custom_obj") {
    throw Error(ErrorCode::kUnsupported, "the program takes a custom C++ object", argument.where());
  } else {
    read_constant_input(fmt::format("arg{}", position), argument.json(), position);
  }
}

void ProgramReader::add_tensor(const JsonCursor& spec, const char* name_key, TensorRole role,
                               const Payloads& payloads) {
  const std::string& name = spec[name_key].string();
  const std::string& placeholder = spec["arg"]["name"].string();
  at::Tensor tensor = payloads.at(name, spec);
  if (model_.find_tensor(name) != nullptr) spec.fail(fmt::format("two tensors `{}`", name));
  const auto [first, last] = by_data_.equal_range(tensor.const_data_ptr());
  for (auto other = first; other != last; ++other) {
    NamedTensor* twin = other->second;
    if (twin->role != role || !same_elements(twin->tensor, tensor)) continue;
    model_.add_alias(twin->name, name);
    scope_[placeholder] = Argument(model_.graph().find(twin->name));
    return;
  }
  if (role == TensorRole::kParameter && c10::isFloatingType(tensor.scalar_type())) {
    const JsonCursor values = graph_["tensor_values"];
    const bool known =
        values.has(placeholder.c_str()) && values[placeholder.c_str()].has("requires_grad");
    tensor.set_requires_grad(!known || values[placeholder.c_str()]["requires_grad"].boolean());
  }
  Value* value = model_.add_tensor(name, tensor, role);
  by_data_.emplace(tensor.const_data_ptr(), model_.find_tensor(name));
  if (!scope_.emplace(placeholder, Argument(value)).second) {
    spec.fail(fmt::format("two inputs are called `{}`", placeholder));
  }
}

void ProgramReader::read_call_signature() {
  for (const JsonCursor& entry : module_["module_call_graph"].elements()) {
    if (!entry["fqn"].string().empty() || !entry.has("signature")) continue;
    const JsonCursor signature = entry["signature"];
    extras_["in_spec"] = signature["in_spec"].string();
    extras_["out_spec"] = signature["out_spec"].string();
    if (signature.has("forward_arg_names")) {
      extras_["forward_arg_names"] = signature["forward_arg_names"].json();
    }
  }
  if (module_.has("treespec_namedtuple_fields") &&
      !module_["treespec_namedtuple_fields"].json().empty()) {
    extras_["namedtuple_fields"] = module_["treespec_namedtuple_fields"].json();
  }
}

void ProgramReader::read_outputs() {
  const std::vector<JsonCursor> values = graph_["outputs"].elements();
  const std::vector<JsonCursor> specs = module_["signature"]["output_specs"].elements();
  if (values.size() != specs.size()) {
    graph_.fail(fmt::format("{} outputs, but the signature has {}", values.size(), specs.size()));
  }
  std::vector<Output> outputs, updates;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto [kind, body] = specs[i].alternative();
    Argument value = reader_.read_argument(values[i], scope_);
    if (kind == "user_output" || kind == "loss_output") {
      outputs.push_back({{}, std::move(value)});
    } else if (kind == "buffer_mutation") {
      const std::string& name = body["buffer_name"].string();
      const NamedTensor* buffer = model_.find_tensor(name);
      if (buffer == nullptr) body.fail(fmt::format("there is no buffer `{}`", name));
      updates.push_back({buffer->name, std::move(value)});
    } else if (kind == "user_input_mutation") {
      model_.notes.push_back(
          fmt::format("the exported function overwrites its input `{}`; here the input is kept",
                      body["user_input_name"].string()));
    } else {
      throw Error(ErrorCode::kUnsupported, fmt::format("an output of kind `{}`", kind),
                  specs[i].where(), "export the forward function of the model only");
    }
  }
  std::vector<std::string> names;
  if (extras_.contains("out_spec")) names = leaf_names(extras_["out_spec"], outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const bool lone = outputs.size() == 1;
    outputs[i].name = !names.empty() ? names[i] : lone ? "output" : fmt::format("output.{}", i);
  }
  model_.graph().set_outputs(std::move(outputs));
  model_.graph().set_updates(std::move(updates));
}

bool is_plain_word(const std::string& name) {
  const auto is_letter = [](char c) { return c == '_' || std::isalpha(static_cast<uint8_t>(c)); };
  return !name.empty() && is_letter(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
    return is_letter(c) || std::isdigit(static_cast<uint8_t>(c));
  });
}

// Gives symbols the names that they had before Python's rules renamed them.
void rename_symbols(Model& model, const json& names) {
  const std::function<void(SizeExpression&)> rename = [&](SizeExpression& expression) {
    const auto found = names.find(expression.name);
    if (expression.kind == SizeExpression::Kind::kSymbol && found != names.end() &&
        found->is_string() && is_plain_word(found->get<std::string>())) {
      expression.name = found->get<std::string>();
    }
    for (SizeExpression& argument : expression.arguments) rename(argument);
  };
  const auto rename_all = [&](Value* value) {
    if (!value->type.sizes) return;
    for (Dim& dim : *value->type.sizes) {
      std::optional<SizeExpression> expression = parse_size_expression(dim.symbol);
      if (!dim.is_symbolic() || !expression) continue;
      rename(*expression);
      dim.symbol = print_readable(*expression);
    }
  };
  for (Value* input : model.graph().inputs()) rename_all(input);
  for (Node& node : model.graph().nodes()) {
    for (Value* output : node.outputs()) rename_all(output);
  }
}

// What Lathe wrote beside the program: names and free text, which cannot contradict the program.
void read_extra(const std::string& text, Model& model) {
  const json extra = json::parse(text, nullptr, false);
  if (!extra.is_object()) return;
  const json metadata = extra.value("metadata", json());
  if (metadata.is_object()) {
    for (const auto& [key, value] : metadata.items()) {
      if (value.is_string() && key != kMetadataKey) model.metadata[key] = value.get<std::string>();
    }
  }
  const json symbols = extra.value("symbols", json());
  if (symbols.is_object() && !symbols.empty()) rename_symbols(model, symbols);
}

}  // namespace

Model load_pt2(const std::shared_ptr<MappedFile>& file, const BatchOptions& batch) {
  const ZipReader zip(file);
  const Archive archive = open_archive(zip);
  const ZipEntry& entry = zip.at(archive.program);
  Model model;
  {
    const JsonDocument document(zip.read(entry), zip.where(entry));
    check_version(JsonCursor(document));
    model = ProgramReader(JsonCursor(document), archive).read();
  }
  if (archive.extra) read_extra(*archive.extra, model);
  functionalize(model);
  generalize_batch(model, batch);
  return model;
}

Model load_pt2(const std::filesystem::path& path, const BatchOptions& batch) {
  return load_pt2(MappedFile::open(path), batch);
}

}  // namespace compress
