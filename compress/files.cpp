// Models from files and into files, whatever the format.

#include "compress/files.h"

#include "compress/error.h"
#include "compress/graph/tensor_text.h"
#include "compress/graph/text.h"
#include "compress/io/atomic_file.h"
#include "compress/io/compressed_tensors.h"
#include "compress/io/mapped_file.h"
#include "compress/io/onnx.h"
#include "compress/io/pt2.h"
#include "compress/io/safetensors.h"
#include "compress/io/state_dict.h"
#include "compress/io/zip.h"
#include "compress/json.h"
#include "compress/weights_file.h"
#include "compress/zoo/zoo.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <set>

namespace compress {
namespace {

// Which tensors of a checkpoint require gradients: .pt2 files say so, .safetensors have no place.
constexpr const char* kTrainedKey = "lathe.requires_grad";

constexpr const char* kZooPrefix = "zoo:";

bool is_text_form(const std::filesystem::path& path) {
  return path.string().ends_with(".lathe.txt");
}

bool is_onnx(const std::filesystem::path& path) { return path.extension() == ".onnx"; }

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

// Which architectures of the zoo a file without a graph is.
std::string what_fits(const StateDict& weights) {
  std::string fitting;
  for (const zoo::Proposal& proposal : zoo::propose(weights))
    fitting += fmt::format(" --arch '{}'", proposal.spec);
  return fitting.empty()
             ? "the file holds weights without a graph, and no architecture of the zoo fits them"
             : "the file holds weights without a graph; architectures that fit:" + fitting;
}

bool is_index(const std::string& path) { return path.ends_with(".index.json"); }

// Weights from any file but exported programs.
StateDict read_weights(const std::shared_ptr<MappedFile>& file, const std::string& path) {
  StateDict weights;
  if (is_index(path)) {
    weights = load_state_dict(std::filesystem::path(path));
  } else if (is_safetensors(*file) && has_own_names(SafetensorsFile(file).metadata())) {
    return read_own_file(file);
  } else {
    weights = load_state_dict(file);
  }
  if (path != "-") add_configuration(weights, std::filesystem::path(path).parent_path());
  return weights;
}

Model from_weights(const StateDict& weights, const LoadOptions& options) {
  std::vector<std::string> notes = weights.notes;
  Model model;
  if (!options.architecture.empty()) {
    model = model_of_weights(weights, options.architecture);
  } else {
    model = model_of_weights(weights);
    if (model.is_tensor_set()) notes.push_back(what_fits(weights));
  }
  model.notes.insert(model.notes.begin(), notes.begin(), notes.end());
  return model;
}

Model from_file(const std::shared_ptr<MappedFile>& file, const std::string& path,
                const LoadOptions& options) {
  if (is_onnx(path)) {
    throw Error(ErrorCode::kUnsupported, "is an ONNX file, which is written but not read", path,
                "give the .pt2 or .safetensors file that it was made from");
  }
  if (is_exported_program(file)) {
    if (!options.architecture.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "the file has a graph of its own", path,
                  "leave out the architecture");
    }
    return load_pt2(file);
  }
  if (is_text_form(path)) return parse_model(file->text(0, file->size()));
  return from_weights(read_weights(file, path), options);
}

std::shared_ptr<MappedFile> read_standard_input() {
  if (isatty(STDIN_FILENO) != 0) {
    throw Error(ErrorCode::kIo, "is a terminal, not a model", "standard input",
                "pipe a file into it: `lathe ... - < model.pt2`");
  }
  std::string bytes(std::istreambuf_iterator<char>(std::cin), {});
  if (bytes.empty()) throw Error(ErrorCode::kIo, "is empty (0 bytes)", "standard input");
  return MappedFile::from_bytes(std::move(bytes), "standard input");
}

// The file that the compressed-tensors library looks for beside a file of this name.
std::filesystem::path configuration_of(const std::filesystem::path& path) {
  return path.parent_path() / "config.json";
}

// Whether a config.json holds nothing but a quantization_config, as those that Lathe writes.
bool is_own_configuration(const std::filesystem::path& path) {
  try {
    const auto file = MappedFile::open(path);
    const Json json = parse_json(file->text(0, file->size()));
    return json.is_object() && json.size() == 1 && json.contains(kQuantizationConfigKey);
  } catch (const Error&) {
    return false;
  }
}

// The library and those built on it look for `model.safetensors` and read how it is packed from
// the config.json beside it. One that is someone else's stays as it is.
void write_configuration(const std::filesystem::path& path, ModelTensors& packed) {
  if (path.filename() != "model.safetensors") return;
  const std::filesystem::path beside = configuration_of(path);
  std::error_code ignored;
  const bool exists = std::filesystem::exists(beside, ignored);
  const auto config = packed.metadata.find(kQuantizationConfigKey);
  if (exists && !is_own_configuration(beside)) {
    if (config == packed.metadata.end()) return;
    packed.notes.push_back(
        fmt::format("{} is left as it is; for transformers and vLLM give it the "
                    "`quantization_config` of the file's metadata",
                    beside.string()));
  } else if (config != packed.metadata.end()) {
    const Json json = {{kQuantizationConfigKey, Json::parse(config->second)}};
    write_file(beside, json.dump(1) + "\n");
  } else if (exists) {
    std::filesystem::remove(beside, ignored);  // said how an older file was packed
  }
}

std::vector<std::string> text_notes(const Model& model) {
  const auto is_left_out = [](const NamedTensor& tensor) {
    return tensor.tensor.defined() && !text::prints_elements(tensor.tensor);
  };
  const auto left_out = std::count_if(model.tensors().begin(), model.tensors().end(), is_left_out);
  if (left_out == 0) return {};
  return {
      fmt::format("{} of {} tensors are written as digests, without their contents: the text "
                  "form is for reading and comparing",
                  left_out, model.tensors().size())};
}

}  // namespace

Model load_model(const std::string& source, const LoadOptions& options) {
  if (source.starts_with(kZooPrefix))
    return zoo::build(source.substr(std::string_view(kZooPrefix).size()));
  std::shared_ptr<MappedFile> file;
  if (source == "-") {
    file = read_standard_input();
  } else if (std::error_code ignored; std::filesystem::is_directory(source, ignored)) {
    load_state_dict(std::filesystem::path(source));  // says which file inside it to take
    throw Error(ErrorCode::kIo, "is a folder, not a file", source);
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
  const std::set<std::string> binary{".onnx", ".pt2", ".safetensors"};
  if (!binary.contains(path.extension().string()) && !is_text_form(path)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("`{}` has no extension of a format that can be written", text), {},
                "write .pt2, .safetensors, .onnx or .lathe.txt");
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw Error(ErrorCode::kIo, "is a folder, a file was expected", text);
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (std::filesystem::is_regular_file(folder, ignored)) {
    throw Error(ErrorCode::kIo, "is a file, a folder was expected", folder.string());
  }
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::kIo, "there is no such folder", folder.string(), "create it first");
  }
  if (access(folder.c_str(), W_OK) != 0) {
    throw Error(ErrorCode::kIo, "the folder cannot be written to", folder.string());
  }
}

void check_save(const Model& model, const std::filesystem::path& path) {
  check_save_path(path);
  if (is_onnx(path)) check_onnx(model);
}

void save_checkpoint(const Model& model, const std::filesystem::path& path) {
  ModelTensors exact = exact_tensors(model);
  Json trained = Json::array();
  for (const NamedTensor& tensor : model.tensors()) {
    if (tensor.tensor.requires_grad()) trained.push_back(tensor.name);
  }
  exact.metadata[kTrainedKey] = trained.dump();
  save_safetensors(path, exact.tensors, exact.metadata);
}

Model load_checkpoint(const std::filesystem::path& path) {
  Model model = load_model(path.string());
  const auto trained = model.metadata.find(kTrainedKey);
  if (trained == model.metadata.end()) {
    throw Error(ErrorCode::kBadFile, "is not a checkpoint", path.string());
  }
  const auto names = parse_json(trained->second, path.string()).get<std::set<std::string>>();
  model.metadata.erase(trained);
  for (NamedTensor& tensor : model.mutable_tensors()) {
    tensor.tensor.set_requires_grad(names.contains(tensor.name));
  }
  return model;
}

int64_t model_file_bytes(const std::filesystem::path& path) {
  auto bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  std::error_code ignored;
  if (is_onnx(path)) {
    const std::filesystem::path data = onnx_data_path(path);
    const bool has_data = std::filesystem::exists(data, ignored);
    return has_data ? bytes + static_cast<int64_t>(std::filesystem::file_size(data)) : bytes;
  }
  std::vector<std::filesystem::path> parts;
  if (is_index(path.string())) {
    parts = safetensors_shards(path);
    for (const auto& part : parts) bytes += static_cast<int64_t>(std::filesystem::file_size(part));
  } else if (path.extension() == ".safetensors") {
    parts.push_back(path);
  }
  const std::filesystem::path beside = configuration_of(path);
  const bool is_needed = std::filesystem::exists(beside, ignored) &&
                         std::any_of(parts.begin(), parts.end(), [](const auto& part) {
                           return needs_configuration(read_own_file(MappedFile::open(part)));
                         });
  return is_needed ? bytes + static_cast<int64_t>(std::filesystem::file_size(beside)) : bytes;
}

std::vector<std::string> save_model(const Model& model, const std::filesystem::path& path) {
  check_save_path(path);
  if (is_text_form(path)) {
    write_file(path, print(model));
    return text_notes(model);
  }
  if (path.extension() == ".pt2") {
    save_pt2(model, path);
    return {};
  }
  if (is_onnx(path)) return save_onnx(model, path);
  ModelTensors packed = pack_model(model);
  save_safetensors(path, packed.tensors, packed.metadata);
  write_configuration(path, packed);
  return packed.notes;
}

}  // namespace compress
