// Models from files and into files, whatever the format.

#include "compress/files.h"

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/io/mapped_file.h"
#include "compress/io/pt2.h"
#include "compress/io/safetensors.h"
#include "compress/io/state_dict.h"
#include "compress/io/zip.h"
#include "compress/zoo/zoo.h"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <iterator>

namespace compress {
namespace {

// Metadata of a .safetensors file that holds the graph in the text form, without tensors' contents.
constexpr const char* kGraphKey = "lathe.graph";

constexpr const char* kZooPrefix = "zoo:";

bool is_text_form(const std::filesystem::path& path) {
  return path.string().ends_with(".lathe.txt");
}

bool is_zip(const MappedFile& file) {
  return file.size() > 4 && file.text(0, 4) == std::string_view("PK\x03\x04", 4);
}

// An exported program, told from a torch.save file by its records.
bool is_exported_program(const std::shared_ptr<MappedFile>& file) {
  if (!is_zip(*file)) return false;
  const ZipReader zip(file);
  for (const ZipEntry& entry : zip.entries()) {
    if (entry.name.ends_with("models/model.json") ||
        entry.name == "serialized_exported_program.json") {
      return true;
    }
  }
  return false;
}

// A bare set of tensors: every tensor is returned under its name.
Model tensor_set(const StateDict& weights) {
  Model model;
  std::map<std::string, std::string> tied_to(weights.ties.begin(), weights.ties.end());
  std::vector<Output> outputs;
  for (const auto& [name, tensor] : weights.tensors) {
    const auto tie = tied_to.find(name);
    if (tie != tied_to.end()) {
      model.add_alias(tie->second, name);
      continue;
    }
    const bool is_parameter = tensor.is_floating_point() || tensor.is_complex();
    Value* value =
        model.add_tensor(name, tensor, is_parameter ? TensorRole::kParameter : TensorRole::kBuffer);
    outputs.push_back({name, value});
  }
  model.graph().set_outputs(std::move(outputs));
  return model;
}

// The graph that Lathe wrote beside the tensors, filled with them.
Model with_own_graph(const StateDict& weights, const std::string& text) {
  Model model = parse_model(text);
  std::vector<std::string> missing;
  for (const NamedTensor& tensor : model.tensors()) {
    const at::Tensor* found = weights.find(tensor.name);
    if (found == nullptr) missing.push_back(tensor.name);
  }
  if (!missing.empty()) {
    throw Error(
        ErrorCode::kBadFile,
        fmt::format(
            "the graph in the metadata needs tensor `{}`, which the file lacks ({} are missing)",
            missing.front(), missing.size()));
  }
  for (NamedTensor& tensor : model.mutable_tensors()) {
    const at::Tensor& stored = *weights.find(tensor.name);
    const TensorType& type = model.graph().find(tensor.name)->type;
    const bool fits = type.dtype == stored.scalar_type() && type.sizes &&
                      *type.sizes == std::vector<Dim>(stored.sizes().begin(), stored.sizes().end());
    if (!fits) {
      throw Error(
          ErrorCode::kBadFile,
          fmt::format("tensor `{}` is not what the graph in the metadata says", tensor.name));
    }
    tensor.tensor = stored;
  }
  for (const auto& [key, value] : weights.metadata) {
    if (key != kGraphKey) model.metadata[key] = value;
  }
  return model;
}

zoo::Weights by_name(const StateDict& weights) {
  return {weights.tensors.begin(), weights.tensors.end()};
}

Model from_weights(StateDict weights, const LoadOptions& options) {
  std::vector<std::string> notes = weights.notes;
  Model model;
  const auto graph = weights.metadata.find(kGraphKey);
  if (!options.architecture.empty()) {
    model = zoo::build_for(options.architecture, by_name(weights));
  } else if (graph != weights.metadata.end()) {
    model = with_own_graph(weights, graph->second);
  } else {
    model = tensor_set(weights);
    const std::vector<zoo::Proposal> proposals = zoo::propose(by_name(weights));
    std::string fitting;
    for (const zoo::Proposal& proposal : proposals)
      fitting += fmt::format(" --arch '{}'", proposal.spec);
    notes.push_back(
        proposals.empty()
            ? "the file holds weights without a graph, and no architecture of the zoo fits them"
            : "the file holds weights without a graph; architectures that fit:" + fitting);
  }
  model.notes.insert(model.notes.begin(), notes.begin(), notes.end());
  return model;
}

Model from_file(const std::shared_ptr<MappedFile>& file, const std::string& path,
                const LoadOptions& options) {
  if (is_exported_program(file)) {
    if (!options.architecture.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "the file has a graph of its own", path,
                  "leave out the architecture");
    }
    return load_pt2(file);
  }
  if (is_text_form(path)) return parse_model(file->text(0, file->size()));
  const bool is_index = path.ends_with(".index.json");
  return from_weights(
      is_index ? load_state_dict(std::filesystem::path(path)) : load_state_dict(file), options);
}

NamedTensors tensors_of(const Model& model) {
  NamedTensors tensors;
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("the values of tensor `{}` are not known", tensor.name));
    }
    tensors.emplace_back(tensor.name, tensor.tensor);
    for (const std::string& alias : tensor.aliases) tensors.emplace_back(alias, tensor.tensor);
  }
  return tensors;
}

}  // namespace

Model load_model(const std::string& source, const LoadOptions& options) {
  if (source.starts_with(kZooPrefix))
    return zoo::build(source.substr(std::string_view(kZooPrefix).size()));
  std::shared_ptr<MappedFile> file;
  if (source == "-") {
    file = MappedFile::from_bytes(std::string(std::istreambuf_iterator<char>(std::cin), {}),
                                  "standard input");
  } else {
    file = MappedFile::open(source);
  }
  try {
    return from_file(file, source, options);
  } catch (const Error& error) {
    throw error.where().starts_with(file->name()) ? error : error.within(file->name());
  }
}

void check_save_path(const std::filesystem::path& path) {
  const std::string text = path.string();
  if (!text.ends_with(".pt2") && !text.ends_with(".safetensors") && !is_text_form(path)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("`{}` has no extension of a format that can be written", text), {},
                "write .pt2, .safetensors or .lathe.txt");
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw Error(ErrorCode::kIo, "is a folder, a file was expected", text);
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::kIo, "there is no such folder", folder.string(), "create it first");
  }
  if (access(folder.c_str(), W_OK) != 0) {
    throw Error(ErrorCode::kIo, "the folder cannot be written to", folder.string());
  }
}

void save_checkpoint(const Model& model, const std::filesystem::path& path) {
  Metadata metadata(model.metadata.begin(), model.metadata.end());
  metadata[kGraphKey] = print(model, {.contents = false});
  save_safetensors(path, tensors_of(model), metadata);
}

Model load_checkpoint(const std::filesystem::path& path) { return load_model(path.string()); }

int64_t model_file_bytes(const std::filesystem::path& path) {
  return static_cast<int64_t>(std::filesystem::file_size(path));
}

void save_model(const Model& model, const std::filesystem::path& path) {
  check_save_path(path);
  if (path.extension() == ".pt2") return save_pt2(model, path);
  if (is_text_form(path)) return write_file(path, print(model));
  Metadata metadata(model.metadata.begin(), model.metadata.end());
  if (!model.is_tensor_set()) metadata[kGraphKey] = print(model, {.contents = false});
  save_safetensors(path, tensors_of(model), metadata);
}

}  // namespace compress
